"""Commands on terminals of their own."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time


class Terminal:
    """A command on a terminal of 80 by 24."""

    def __init__(self, command):
        self.forked = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        # Held by another command, it would not hang up when it is closed here.
        os.set_inheritable(self.fd, False)

    def read(self, deadline):
        """What it writes next; nothing once it has ended."""
        if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            raise TimeoutError("the command is silent")
        try:
            return os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return b""

    def write(self, data):
        os.write(self.fd, data)

    def close(self, deadline):
        """Closes the terminal, and kills whom that does not end."""
        os.close(self.fd)
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)
