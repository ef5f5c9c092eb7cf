//! Setting a bucket up: versions kept, nothing public, encrypted by default, and what is left over removed in time.
//!
//! What was put is read again before it counts as done: servers that do not know a part of a bucket's configuration
//! take the request for one to make the bucket.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
    NoncurrentVersionExpiration, PublicAccessBlockConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
    VersioningConfiguration,
};

use futures_util::future::BoxFuture;

use super::failure::Failure;
use super::{DEFAULT_REGION, S3Store};
use crate::adapters::store::{Outcome, Step};
use crate::vault::store::{Kind, Result, StoreError};

/// How long a bucket keeps versions that were replaced or removed, in days.
const NONCURRENT_DAYS: i32 = 90;

/// How long it keeps parts of uploads that nobody completed, in days.
const UPLOAD_DAYS: i32 = 7;

/// Whether something is so; what went wrong otherwise.
type Seen = std::result::Result<bool, Failure>;
type Put = std::result::Result<(), Failure>;

impl S3Store {
    pub(super) async fn set_up(&self) -> Result<Vec<Step>> {
        let made = self.make_bucket().await?;
        Ok(vec![
            Step { what: "the bucket exists", outcome: made },
            Step {
                what: "replaced and removed objects are kept as versions",
                outcome: self.keep_versions().await,
            },
            Step { what: "nothing in it can be public", outcome: self.block_public().await },
            Step { what: "it encrypts by default", outcome: self.encrypt().await },
            Step {
                what: "old versions go after 90 days, unfinished uploads after 7",
                outcome: self.clear_leftovers().await,
            },
        ])
    }

    async fn make_bucket(&self) -> Result<Outcome> {
        let bucket = &self.config.bucket;
        let cannot =
            |failure: Failure, what: &str| Err(failure.on(format!("cannot {what} the bucket `{bucket}`")));
        let failure = match self.client.list_objects_v2().bucket(bucket).max_keys(1).send().await {
            Ok(_) => return Ok(Outcome::WasSo),
            Err(error) => Failure::of(&error),
        };
        if failure.kind != Kind::NoPlace {
            return cannot(failure, "look into");
        }
        let mut request = self.client.create_bucket().bucket(bucket);
        // AWS wants every region to be named but its first.
        if self.config.endpoint.is_none() && self.region != DEFAULT_REGION {
            let region = BucketLocationConstraint::from(self.region.as_str());
            request = request.create_bucket_configuration(
                CreateBucketConfiguration::builder().location_constraint(region).build(),
            );
        }
        match request.send().await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) => {
                let failure = Failure::of(&error);
                match failure.code.as_str() {
                    "BucketAlreadyOwnedByYou" => Ok(Outcome::WasSo),
                    "BucketAlreadyExists" => Err(StoreError::new(
                        Kind::Denied,
                        format!("the bucket `{bucket}` is somebody else's"),
                    )),
                    _ => cannot(failure, "make"),
                }
            }
        }
    }

    async fn keep_versions(&self) -> Outcome {
        let seen = || -> BoxFuture<'_, Seen> {
            Box::pin(async {
                let answer = self.client.get_bucket_versioning().bucket(&self.config.bucket).send().await;
                answer
                    .map(|answer| answer.status() == Some(&BucketVersioningStatus::Enabled))
                    .map_err(|error| Failure::of(&error))
            })
        };
        let put = async {
            let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
            let request = self.client.put_bucket_versioning().bucket(&self.config.bucket);
            request.versioning_configuration(on).send().await.map(drop).map_err(|error| Failure::of(&error))
        };
        self.step(seen, put, "keep versions").await
    }

    async fn block_public(&self) -> Outcome {
        let seen = || -> BoxFuture<'_, Seen> {
            Box::pin(async {
                let answer = self.client.get_public_access_block().bucket(&self.config.bucket).send().await;
                let answer = answer.map_err(|error| Failure::of(&error))?;
                Ok(answer.public_access_block_configuration().is_some_and(|block| {
                    [
                        block.block_public_acls(),
                        block.ignore_public_acls(),
                        block.block_public_policy(),
                        block.restrict_public_buckets(),
                    ]
                    .iter()
                    .all(|part| *part == Some(true))
                }))
            })
        };
        let put = async {
            let all = PublicAccessBlockConfiguration::builder()
                .block_public_acls(true)
                .ignore_public_acls(true)
                .block_public_policy(true)
                .restrict_public_buckets(true)
                .build();
            let request = self.client.put_public_access_block().bucket(&self.config.bucket);
            let sent = request.public_access_block_configuration(all).send().await;
            sent.map(drop).map_err(|error| Failure::of(&error))
        };
        self.step(seen, put, "block public access").await
    }

    async fn encrypt(&self) -> Outcome {
        let seen = || -> BoxFuture<'_, Seen> {
            Box::pin(async {
                let answer = self.client.get_bucket_encryption().bucket(&self.config.bucket).send().await;
                let answer = answer.map_err(|error| Failure::of(&error))?;
                let rules = answer.server_side_encryption_configuration().map(|found| found.rules());
                // Whichever algorithm: a stronger one is not replaced.
                Ok(rules
                    .unwrap_or_default()
                    .iter()
                    .any(|rule| rule.apply_server_side_encryption_by_default().is_some()))
            })
        };
        let put = async {
            let invalid = |_| Failure::local("the configuration of encryption is incomplete");
            let algorithm = ServerSideEncryptionByDefault::builder()
                .sse_algorithm(ServerSideEncryption::Aes256)
                .build()
                .map_err(invalid)?;
            let rule = ServerSideEncryptionRule::builder()
                .apply_server_side_encryption_by_default(algorithm)
                .build();
            let rules = ServerSideEncryptionConfiguration::builder().rules(rule).build().map_err(invalid)?;
            let request = self.client.put_bucket_encryption().bucket(&self.config.bucket);
            let sent = request.server_side_encryption_configuration(rules).send().await;
            sent.map(drop).map_err(|error| Failure::of(&error))
        };
        self.step(seen, put, "encrypt by default").await
    }

    async fn clear_leftovers(&self) -> Outcome {
        let seen = || -> BoxFuture<'_, Seen> {
            Box::pin(async { Ok(ours(&self.rules().await?, &self.config.prefix)) })
        };
        let put = async {
            // They are put as a whole: those of others stay.
            let prefix = self.config.prefix.as_str();
            let mut rules = match self.rules().await {
                Err(failure) if failure.status == 404 => Vec::new(),
                other => other?,
            };
            rules.retain(|rule| rule.id() != Some(rule_name(prefix).as_str()));
            let invalid = |_| Failure::local("the lifecycle rule is incomplete");
            rules.push(rule(prefix).map_err(invalid)?);
            let rules =
                BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(invalid)?;
            let request = self.client.put_bucket_lifecycle_configuration().bucket(&self.config.bucket);
            request.lifecycle_configuration(rules).send().await.map(drop).map_err(|error| Failure::of(&error))
        };
        let outcome = self.step(seen, put, "set lifecycle rules").await;
        let harmful =
            self.rules().await.map(|rules| harmful(&rules, &self.config.prefix)).unwrap_or_default();
        match (outcome, harmful) {
            (outcome @ Outcome::Failed(_), _) | (outcome, None) => outcome,
            (_, Some(name)) => Outcome::Warning(format!(
                "the lifecycle rule `{name}` removes or archives current objects, and the vault with them"
            )),
        }
    }

    async fn rules(&self) -> std::result::Result<Vec<LifecycleRule>, Failure> {
        let answer =
            self.client.get_bucket_lifecycle_configuration().bucket(&self.config.bucket).send().await;
        answer.map(|answer| answer.rules().to_vec()).map_err(|error| Failure::of(&error))
    }

    /// Looks, changes what is not so, and looks again.
    async fn step<'a>(
        &'a self,
        seen: impl Fn() -> BoxFuture<'a, Seen> + Sync,
        put: impl Future<Output = Put> + Send,
        doing: &str,
    ) -> Outcome {
        let cannot = |failure: Failure| {
            Outcome::Failed(failure.on(format!("cannot {doing} in `{}`", self.config.bucket)))
        };
        // So many codes for "there is no such configuration yet".
        let none_yet = |failure: &Failure| failure.status == 404 && failure.kind != Kind::NoPlace;
        match seen().await {
            Ok(true) => return Outcome::WasSo,
            Ok(false) => {}
            Err(failure) if failure.is_unsupported() => return Outcome::NotSupported,
            Err(failure) if none_yet(&failure) => {}
            Err(failure) => return cannot(failure),
        }
        let put = put.await;
        match (seen().await, put) {
            (Ok(true), _) => Outcome::Done,
            // Of a server that takes this for the making of a bucket.
            (_, Err(failure)) if failure.is_unsupported() || failure.code.starts_with("BucketAlready") => {
                Outcome::NotSupported
            }
            (_, Err(failure)) => cannot(failure),
            (Err(failure), _) if !failure.is_unsupported() && !none_yet(&failure) => cannot(failure),
            _ => Outcome::NotSupported,
        }
    }
}

fn rule_name(prefix: &str) -> String {
    format!("tazpod-leftovers:{prefix}")
}

fn rule(prefix: &str) -> std::result::Result<LifecycleRule, aws_sdk_s3::error::BuildError> {
    LifecycleRule::builder()
        .id(rule_name(prefix))
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(directory(prefix)).build())
        .noncurrent_version_expiration(
            NoncurrentVersionExpiration::builder().noncurrent_days(NONCURRENT_DAYS).build(),
        )
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(UPLOAD_DAYS).build(),
        )
        .build()
}

fn ours(rules: &[LifecycleRule], prefix: &str) -> bool {
    rules.iter().any(|rule| {
        rule.id() == Some(rule_name(prefix).as_str())
            && *rule.status() == ExpirationStatus::Enabled
            && rule.noncurrent_version_expiration().and_then(|found| found.noncurrent_days())
                == Some(NONCURRENT_DAYS)
            && rule.abort_incomplete_multipart_upload().and_then(|found| found.days_after_initiation())
                == Some(UPLOAD_DAYS)
    })
}

/// The name of a rule that touches current objects of the vault.
fn harmful(rules: &[LifecycleRule], prefix: &str) -> Option<String> {
    let prefix = directory(prefix);
    let of_filter = |rule: &LifecycleRule| {
        let filter = rule.filter();
        let and = filter.and_then(|filter| filter.and()?.prefix());
        #[expect(deprecated, reason = "rules made long ago have it")]
        let old = rule.prefix();
        filter.and_then(|filter| filter.prefix()).or(and).or(old).unwrap_or_default().to_owned()
    };
    let touches = |rule: &&LifecycleRule| {
        let of_rule = of_filter(rule);
        let overlaps = prefix.starts_with(&of_rule) || of_rule.starts_with(&prefix);
        let expires =
            rule.expiration().is_some_and(|expires| expires.days().is_some() || expires.date().is_some());
        *rule.status() == ExpirationStatus::Enabled && overlaps && (expires || !rule.transitions().is_empty())
    };
    rules.iter().find(touches).map(|rule| rule.id().unwrap_or("(without a name)").to_owned())
}

fn directory(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, Transition};

    use super::*;

    fn of(prefix: &str) -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
        LifecycleRule::builder()
            .id("theirs")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
    }

    #[test]
    fn rules_that_touch_current_objects_are_found() {
        let expire = || LifecycleExpiration::builder().days(30).build();
        let found = |rule: LifecycleRule| harmful(&[rule], "team/vault").is_some();
        assert!(found(of("").expiration(expire()).build().unwrap()));
        assert!(found(of("team/").transitions(Transition::builder().days(1).build()).build().unwrap()));
        assert!(found(of("team/vault/gen/").expiration(expire()).build().unwrap()));
        assert!(!found(of("logs/").expiration(expire()).build().unwrap()));
        assert!(!found(of("").status(ExpirationStatus::Disabled).expiration(expire()).build().unwrap()));
        let markers = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
        assert!(!found(of("").expiration(markers).build().unwrap()));
        let own = rule("team/vault").unwrap();
        assert!(ours(std::slice::from_ref(&own), "team/vault"));
        assert!(!ours(std::slice::from_ref(&own), "other"));
        assert!(!found(own));
    }
}
