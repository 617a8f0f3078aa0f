//! How AWS is called and what instances may do there: credentials, region, instance profile.

use secrecy::{ExposeSecret, SecretString};

use super::section::Section;
use super::yaml::quoted;
use super::{Aws, Credentials, InstanceProfile};

/// Region and credentials. Messages about credentials never say what stands there.
pub(super) fn aws(hyper: &Section<'_>) -> Aws {
    let region = hyper.checked_text("cloud_credentials_region", check_region);
    Aws { region, credentials: credentials(hyper) }
}

fn credentials(hyper: &Section<'_>) -> Credentials {
    const KEY: &str = "cloud_credentials_key";
    const SECRET: &str = "cloud_credentials_secret";
    const TOKEN: &str = "cloud_credentials_token";
    let chain = hyper.flag("use_credentials_chain");
    let (has_key, has_secret) = (hyper.has(KEY), hyper.has(SECRET));
    let trimmed = |key| hyper.secret(key).map(|secret| SecretString::from(secret.expose_secret().trim()));
    let (key, secret, token) = (trimmed(KEY), trimmed(SECRET), trimmed(TOKEN));
    if has_key && !has_secret {
        hyper.fault(SECRET, format!("is missing, though {KEY} is set; set both or neither"));
    }
    if has_secret && !has_key {
        hyper.fault(KEY, format!("is missing, though {SECRET} is set; set both or neither"));
    }
    if hyper.has(TOKEN) && !has_key && !has_secret {
        hyper.fault(TOKEN, format!("is of no use without {KEY} and {SECRET}"));
    }
    match (key, secret) {
        (Some(access_key), Some(secret_key)) if !chain => {
            Credentials::Keys { access_key, secret_key, session_token: token }
        }
        (Some(_), Some(_)) => {
            hyper.warn(KEY, "ignored, as use_credentials_chain is true");
            Credentials::Chain
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => Credentials::Chain,
    }
}

/// The profile that instances get. The script takes it whether or not `use_iam_instance_profile` is true.
pub(super) fn instance_profile(hyper: &Section<'_>) -> Option<InstanceProfile> {
    let wanted = hyper.flag("use_iam_instance_profile");
    let (has_arn, has_name) = (hyper.has("iam_arn"), hyper.has("iam_name"));
    if has_arn && has_name {
        hyper.fault("iam_name", "cannot be set together with iam_arn; keep one of them");
    }
    if wanted && !has_arn && !has_name {
        hyper.fault("use_iam_instance_profile", "is true, but neither iam_arn nor iam_name is set");
    }
    let arn = hyper.checked_text("iam_arn", check_arn).map(InstanceProfile::Arn);
    let name = hyper.checked_text("iam_name", check_profile_name).map(InstanceProfile::Name);
    arn.or(name)
}

fn check_region(region: &str) -> Result<(), String> {
    let clean = region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let parts = region.split('-').count();
    if clean && parts >= 3 && region.ends_with(|c: char| c.is_ascii_digit()) {
        return Ok(());
    }
    let zone =
        region.strip_suffix(|c: char| c.is_ascii_lowercase()).filter(|stem| check_region(stem).is_ok());
    Err(match zone {
        Some(stem) => format!("must be a region, not the availability zone {}; write {stem}", quoted(region)),
        None => format!("must be a region such as us-east-1, not {}", quoted(region)),
    })
}

fn check_arn(arn: &str) -> Result<(), String> {
    if arn.starts_with("arn:aws") && arn.contains(":iam::") && arn.contains(":instance-profile/") {
        return Ok(());
    }
    let wanted = "must be an instance profile's ARN, arn:aws:iam::ACCOUNT:instance-profile/NAME";
    Err(format!("{wanted}, not {}", quoted(arn)))
}

fn check_profile_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c);
    if name.len() <= 128 && name.chars().all(allowed) {
        return Ok(());
    }
    Err(format!("must be an instance profile's name, letters, digits and +=,.@-_ only, not {}", quoted(name)))
}
