//! What a server's refusal means. By its code, not by its words; and absence is only what says that it is.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::vault::store::{Kind, StoreError};

/// The longest text of a server's that is passed on, in characters.
const LONGEST: usize = 300;

/// Why a request did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The class.
    pub(super) kind: Kind,
    /// The server's code, empty where it gave none.
    pub(super) code: String,
    /// The status of the answer, 0 where there was none.
    pub(super) status: u16,
    text: String,
}

impl Failure {
    /// Sorts what the SDK says.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let without_answer =
            |kind, text: String| Failure { kind, code: String::new(), status: 0, text: tidy(&text) };
        match error {
            SdkError::ServiceError(failed) => {
                let answer = failed.raw();
                Failure::said(
                    answer.status().as_u16(),
                    failed.err().code().unwrap_or_default(),
                    failed.err().message().unwrap_or_default(),
                    answer.headers().get("x-amz-bucket-region"),
                )
            }
            SdkError::ResponseError(failed) => match failed.raw().status().as_u16() {
                status if status >= 300 => Failure::said(status, "", "", None),
                status => {
                    let text = format!("the answer broke off: {}", innermost(error));
                    Failure { status, ..without_answer(Kind::Unreachable, text) }
                }
            },
            SdkError::TimeoutError(_) => {
                without_answer(Kind::Unreachable, "it did not answer in time".into())
            }
            _ if credentials(error) => without_answer(Kind::Credentials, innermost(error)),
            SdkError::ConstructionFailure(_) => without_answer(Kind::Other, innermost(error)),
            _ => without_answer(Kind::Unreachable, innermost(error)),
        }
    }

    /// Of what went wrong before anything was asked.
    pub(super) fn local(text: &str) -> Failure {
        Failure { kind: Kind::Other, code: String::new(), status: 0, text: text.to_owned() }
    }

    fn said(status: u16, code: &str, message: &str, region: Option<&str>) -> Failure {
        let text = match (code, message) {
            ("", "") if status < 300 => "the server's answer is none to this question".to_owned(),
            ("", "") => format!("the server answered {status}"),
            ("", message) => message.to_owned(),
            (code, message) if message.is_empty() || message == code => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let elsewhere = matches!(status, 301 | 307)
            || matches!(code, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException");
        let text = match region.filter(|_| elsewhere) {
            Some(region) => format!("the bucket is in another region, set `region` to `{region}`: {text}"),
            None => text,
        };
        Failure { kind: kind(status, code), code: code.to_owned(), status, text: tidy(&text) }
    }

    /// Whether the server said that this object is not there.
    pub(super) fn is_absence(&self) -> bool {
        self.status == 404 && matches!(self.code.as_str(), "NoSuchKey" | "NotFound")
    }

    /// Whether the server said that it has no such function.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self.status, 405 | 501)
            || matches!(self.code.as_str(), "NotImplemented" | "MethodNotAllowed")
            // It answered another question, having overlooked what it does not know in this one.
            || self.is_beside_the_point()
    }

    /// Whether the server answered that all is well, in a way that is not understood.
    fn is_beside_the_point(&self) -> bool {
        (200..300).contains(&self.status) && self.code.is_empty()
    }

    /// As an error of something that was being done.
    pub(super) fn on(self, doing: impl Into<String>) -> StoreError {
        StoreError::new(self.kind, doing).with_source(Said(self.text))
    }
}

fn kind(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchBucket" => Kind::NoPlace,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "TokenRefreshRequired"
        | "InvalidToken"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "MissingAuthenticationToken"
        | "MissingSecurityHeader"
        | "AuthFailure" => Kind::Credentials,
        "RequestTimeTooSkewed" | "RequestExpired" => Kind::Clock,
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ContentSHA256Mismatch" => Kind::Corrupt,
        "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "StorageQuotaExceeded" => Kind::Full,
        "IncompleteBody" | "RequestTimeout" => Kind::Unreachable,
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "InternalError"
        | "ServiceUnavailable"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests" => Kind::Busy,
        // An object that a lifecycle rule archived.
        "InvalidObjectState" => Kind::Other,
        _ => match status {
            401 => Kind::Credentials,
            403 => Kind::Denied,
            408 => Kind::Unreachable,
            429 => Kind::Busy,
            501 => Kind::Other,
            507 => Kind::Full,
            500.. => Kind::Busy,
            _ => Kind::Other,
        },
    }
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> + use<'a> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn credentials(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| error.is::<CredentialsError>())
}

/// What the last cause says: those before it only name the layers of the SDK.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// One line, of bounded length, without control characters: it comes from outside and goes to a terminal.
fn tidy(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    line.trim_end_matches('.').to_owned()
}

/// What the server, or the network, said.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Said {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_key_is_absence() {
        let absent = |status, code| Failure::said(status, code, "", None).is_absence();
        assert!(absent(404, "NoSuchKey"));
        assert!(!absent(404, "NoSuchBucket"));
        assert!(!absent(404, ""));
        assert!(!absent(403, "AccessDenied"));
        assert!(!absent(403, "NoSuchKey"));
    }

    #[test]
    fn classes() {
        for (status, code, expected) in [
            (403, "AccessDenied", Kind::Denied),
            (403, "", Kind::Denied),
            (403, "SignatureDoesNotMatch", Kind::Credentials),
            (403, "InvalidAccessKeyId", Kind::Credentials),
            (400, "ExpiredToken", Kind::Credentials),
            (403, "RequestTimeTooSkewed", Kind::Clock),
            (404, "NoSuchBucket", Kind::NoPlace),
            (400, "BadDigest", Kind::Corrupt),
            (409, "ConditionalRequestConflict", Kind::Busy),
            (503, "SlowDown", Kind::Busy),
            (500, "", Kind::Busy),
            // What completing an upload in parts may answer.
            (200, "InternalError", Kind::Busy),
            (501, "NotImplemented", Kind::Other),
            (507, "", Kind::Full),
            (404, "", Kind::Other),
            (400, "RequestTimeout", Kind::Unreachable),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn another_region_is_named() {
        let failure = Failure::said(301, "PermanentRedirect", "go elsewhere", Some("eu-west-1"));
        let error = failure.on("cannot read `x`");
        let said = crate::error::Error::from(error).to_string();
        assert!(said.contains("set `region` to `eu-west-1`"), "{said}");
    }

    #[test]
    fn what_a_server_says_is_tidied() {
        assert_eq!(tidy("\n  Access \u{1b}[31mDenied.\nmore"), "Access [31mDenied");
        assert_eq!(tidy(&"x".repeat(1000)).len(), LONGEST);
    }
}
