//! The client of the agent.
