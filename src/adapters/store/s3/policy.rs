//! The least that credentials must allow, as IAM policies. They go to an identity, not to the bucket.

use serde_json::{Value, json};

use super::super::config::S3Config;

/// What credentials are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pull, push and save. It can remove nothing, and overwrite no commit.
    Daily,
    /// `vault prune` as well: it can remove generations and keyrings, which a bucket with versions keeps for a while.
    Maintenance,
    /// Setting the bucket up, once.
    Setup,
}

/// The policy for a role, as JSON to be pasted.
pub fn policy(config: &S3Config, role: Role) -> String {
    let statements = match role {
        Role::Daily => daily(config),
        Role::Maintenance => daily(config).into_iter().chain(prune(config)).collect(),
        Role::Setup => setup(config).into(),
    };
    let policy = json!({ "Version": "2012-10-17", "Statement": statements });
    format!("{policy:#}")
}

fn daily(config: &S3Config) -> Vec<Value> {
    let bucket = bucket(config);
    let mut list = json!({
        "Sid": "TazpodList",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": bucket,
    });
    if let (false, Some(list)) = (config.prefix.is_empty(), list.as_object_mut()) {
        // `IfExists`, because reading a key that is not there needs this permission too, and names no prefix: without
        // it the answer would be 403 instead of 404.
        let prefix = format!("{}/*", config.prefix);
        list.insert("Condition".into(), json!({ "StringLikeIfExists": { "s3:prefix": prefix } }));
    }
    let under = |names: &[&str]| names.iter().map(|name| objects(config, name)).collect::<Vec<_>>();
    vec![
        list,
        json!({
            "Sid": "TazpodRead",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": objects(config, "*"),
        }),
        json!({
            "Sid": "TazpodWrite",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": under(&["gen/*", "keys/*", "branches/*"]),
        }),
        json!({
            "Sid": "TazpodCreateOnce",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": under(&["commits/*"]),
            "Condition": { "Null": { "s3:if-none-match": "false" } },
        }),
        json!({
            "Sid": "TazpodProbe",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": objects(config, "probe/*"),
        }),
    ]
}

fn prune(config: &S3Config) -> [Value; 2] {
    // Never commits, and not the records of what was pruned.
    let names = ["gen/*", "keys/*", "probe/*"].map(|name| objects(config, name));
    [
        json!({
            "Sid": "TazpodRecord",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": objects(config, "pruned/*"),
        }),
        json!({
            "Sid": "TazpodRemove",
            "Effect": "Allow",
            "Action": "s3:DeleteObject",
            "Resource": names,
        }),
    ]
}

fn setup(config: &S3Config) -> [Value; 2] {
    let bucket_itself = json!({
        "Sid": "TazpodSetup",
        "Effect": "Allow",
        "Action": [
            "s3:CreateBucket",
            "s3:ListBucket",
            "s3:GetBucketVersioning",
            "s3:PutBucketVersioning",
            "s3:GetBucketPublicAccessBlock",
            "s3:PutBucketPublicAccessBlock",
            "s3:GetEncryptionConfiguration",
            "s3:PutEncryptionConfiguration",
            "s3:GetLifecycleConfiguration",
            "s3:PutLifecycleConfiguration",
        ],
        "Resource": bucket(config),
    });
    let probe = json!({
        "Sid": "TazpodProbe",
        "Effect": "Allow",
        "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"],
        "Resource": objects(config, "probe/*"),
    });
    [bucket_itself, probe]
}

fn bucket(config: &S3Config) -> String {
    let partition = match config.region.as_deref() {
        Some(region) if region.starts_with("cn-") => "aws-cn",
        Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:s3:::{}", config.bucket)
}

fn objects(config: &S3Config, name: &str) -> String {
    let bucket = bucket(config);
    if config.prefix.is_empty() {
        format!("{bucket}/{name}")
    } else {
        format!("{bucket}/{}/{name}", config.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::store::StoreConfig;

    fn statements(address: &str, role: Role) -> Vec<Value> {
        let StoreConfig::S3(config) = StoreConfig::parse(address).unwrap() else { unreachable!() };
        let policy: Value = serde_json::from_str(&policy(&config, role)).unwrap();
        policy["Statement"].as_array().unwrap().clone()
    }

    fn allowed(statements: &[Value], action: &str) -> Vec<String> {
        let names = |value: &Value| match value {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
            _ => unreachable!(),
        };
        let allows = |statement: &&Value| names(&statement["Action"]).iter().any(|name| name == action);
        statements.iter().filter(allows).flat_map(|statement| names(&statement["Resource"])).collect()
    }

    #[test]
    fn the_daily_role_removes_nothing_of_the_vault() {
        let daily = statements("s3://bucket/team/vault", Role::Daily);
        assert_eq!(allowed(&daily, "s3:DeleteObject"), [""; 0]);
        assert_eq!(allowed(&daily, "s3:GetObject"), ["arn:aws:s3:::bucket/team/vault/*"]);
        assert_eq!(allowed(&daily, "s3:ListBucket"), ["arn:aws:s3:::bucket"]);
        let maintenance = statements("s3://bucket/team/vault", Role::Maintenance);
        let under = |name| format!("arn:aws:s3:::bucket/team/vault/{name}/*");
        assert_eq!(allowed(&maintenance, "s3:DeleteObject"), ["gen", "keys", "probe"].map(under));
        let writes = |role: &[Value]| allowed(role, "s3:PutObject").contains(&under("pruned"));
        assert!(writes(&maintenance) && !writes(&daily));
    }

    #[test]
    fn commits_are_created_and_never_overwritten() {
        let daily = statements("s3://bucket", Role::Daily);
        let commits = |statement: &&Value| statement["Resource"].to_string().contains("/commits/*");
        let on_commits: Vec<_> = daily.iter().filter(commits).collect();
        assert_eq!(on_commits.len(), 1);
        assert_eq!(on_commits[0]["Condition"], json!({ "Null": { "s3:if-none-match": "false" } }));
        assert_eq!(on_commits[0]["Resource"], json!(["arn:aws:s3:::bucket/commits/*"]));
        let all = |resource: &String| resource.ends_with("bucket/*");
        assert!(!allowed(&daily, "s3:PutObject").iter().any(all));
    }

    #[test]
    fn a_prefix_bounds_the_list() {
        let list = |address| statements(address, Role::Daily)[0]["Condition"].clone();
        assert_eq!(list("s3://bucket"), Value::Null);
        assert_eq!(list("s3://bucket/x"), json!({ "StringLikeIfExists": { "s3:prefix": "x/*" } }));
    }

    #[test]
    fn partitions_have_names_of_their_own() {
        let StoreConfig::S3(mut config) = StoreConfig::parse("s3://bucket").unwrap() else { unreachable!() };
        config.region = Some("cn-north-1".into());
        assert!(policy(&config, Role::Setup).contains("arn:aws-cn:s3:::bucket"));
    }
}
