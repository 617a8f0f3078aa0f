//! The first page: who calls AWS, where, what instances may do there; and the git user.

use serde_json::{Value, json};

use super::choices::Verdict;
use super::dialogue::{Mode, Question, among};
use super::screen::NoAnswer;
use super::{STARRED_PASSWORD, STARRED_USER, Wizard};

const KEY: &str = "cloud_credentials_key";
const SECRET: &str = "cloud_credentials_secret";
const TOKEN: &str = "cloud_credentials_token";
const CHAIN: &str = "use_credentials_chain";
const REGION: &str = "cloud_credentials_region";
/// The script's, which is a zone: its letter is taken off.
const DEFAULT_REGION: &str = "us-east-1b";
/// How AWS's temporary keys begin.
const TEMPORARY: &str = "ASIA";
/// Where the password comes from without a file.
const GIT_PASSWORD_VARIABLE: &str = "CLEARML_AUTOSCALER_GIT_PASSWORD";

impl Wizard<'_> {
    /// Credentials, region, instance profile.
    pub(super) fn aws(&mut self) -> Result<(), NoAnswer> {
        loop {
            while !self.credentials()? {}
            self.reconnect();
            self.region()?;
            self.reconnect();
            // Only now, as each partition of AWS has keys of its own.
            if self.credentials_do()? {
                break;
            }
        }
        self.instance_profile()
    }

    /// One try; false if the operator wants the prompt again.
    fn credentials(&mut self) -> Result<bool, NoAnswer> {
        let chain = self.given.chain.filter(|_| self.talk.hears_flags());
        if chain == Some(true) {
            self.use_chain();
        } else {
            let stands = self.draft.hyper(KEY);
            let question = Question {
                flag: "--aws-access-key-id",
                given: self.given.access_key.as_deref(),
                prompt: match &stands {
                    Some(key) => format!("Enter AWS Access Key ID [{}]:", ending(key)),
                    None => "Enter AWS Access Key ID :".to_owned(),
                },
                default: stands.clone(),
                optional: self.talk.asks(),
                ..Question::default()
            };
            let key = self.talk.ask(&question, one_word)?;
            if key.as_deref() == Some("") {
                return self.chain_instead();
            }
            let same = key.is_none() || key == stands;
            if let Some(key) = key {
                self.draft.set_hyper(KEY, json!(key));
                self.draft.set_hyper(CHAIN, Value::Null);
            }
            self.secret_key(same)?;
            self.session_token(same)?;
        }
        Ok(true)
    }

    /// An empty key stands for the standard chain, if the operator means it.
    fn chain_instead(&mut self) -> Result<bool, NoAnswer> {
        let prompt = "Use this machine's own AWS credentials (environment, profile or IAM role)?";
        if self.talk.confirm("--use-credentials-chain", None, prompt, true)? != Some(true) {
            return Ok(false);
        }
        self.use_chain();
        Ok(true)
    }

    fn use_chain(&mut self) {
        for key in [KEY, SECRET, TOKEN] {
            self.draft.set_hyper(key, Value::Null);
        }
        self.draft.set_hyper(CHAIN, json!(true));
    }

    fn secret_key(&mut self, same: bool) -> Result<(), NoAnswer> {
        let stands = self.draft.hyper(SECRET).filter(|_| same);
        let question = Question {
            flag: "--aws-secret-access-key",
            given: self.given.secret_key.as_deref(),
            prompt: match stands {
                Some(_) => format!("Enter AWS Secret Access Key [{STARRED_PASSWORD}]:"),
                None => "Enter AWS Secret Access Key :".to_owned(),
            },
            default: stands,
            secret: true,
            ..Question::default()
        };
        if let Some(secret) = self.talk.ask(&question, one_word)? {
            self.draft.set_hyper(SECRET, json!(secret));
        }
        Ok(())
    }

    /// Only temporary keys have a token, and only they are asked for one.
    fn session_token(&mut self, same: bool) -> Result<(), NoAnswer> {
        let stands = self.draft.hyper(TOKEN).filter(|_| same);
        if !same {
            self.draft.set_hyper(TOKEN, Value::Null);
        }
        let temporary = self.draft.hyper(KEY).is_some_and(|key| key.starts_with(TEMPORARY));
        if !temporary && self.given.session_token.is_none() {
            return Ok(());
        }
        self.talk
            .say("  These keys are temporary: the auto-scaler can work until they expire, not longer.")?;
        let shown = stands.as_ref().map_or("", |_| STARRED_PASSWORD);
        let question = Question {
            flag: "--aws-session-token",
            given: self.given.session_token.as_deref(),
            prompt: format!("Enter AWS session token of these keys [{shown}]:"),
            default: stands,
            secret: true,
            ..Question::default()
        };
        if let Some(token) = self.talk.ask(&question, one_word)? {
            self.draft.set_hyper(TOKEN, json!(token));
        }
        Ok(())
    }

    /// Whether AWS takes the credentials, or the operator insists on them.
    fn credentials_do(&mut self) -> Result<bool, NoAnswer> {
        if self.talk.mode == Mode::Keep {
            return Ok(true);
        }
        let verdict = self.choices.credentials();
        self.say_trouble()?;
        match verdict {
            Verdict::Accepted | Verdict::Unknown => Ok(true),
            Verdict::Refused(why) => {
                self.talk.say(&format!("  AWS does not take these credentials: {why}"))?;
                if !self.talk.asks() {
                    return Ok(true);
                }
                let anyway = self.talk.confirm("", None, "Use them nevertheless?", false)?;
                Ok(anyway == Some(true))
            }
        }
    }

    fn region(&mut self) -> Result<(), NoAnswer> {
        let stands = self.draft.region().or_else(|| self.first_default(DEFAULT_REGION));
        let shown = stands.as_deref().unwrap_or_default();
        let regions = if self.talk.asks() { self.choices.regions() } else { None };
        self.say_trouble()?;
        let question = Question {
            flag: "--aws-region",
            given: self.given.region.as_deref(),
            prompt: format!("Enter AWS region name [{shown}]:"),
            default: stands.clone(),
            choices: regions.as_deref().unwrap_or_default(),
            ..Question::default()
        };
        let draft = &self.draft;
        let answer = self.talk.ask(&question, |answer| {
            let region = region_of(answer, |region| draft.check_hyper(REGION, &json!(region)))?;
            among(regions.as_deref(), region, "region", "")?;
            Ok((answer.to_owned(), region.to_owned()))
        })?;
        let Some((answer, region)) = answer else { return Ok(()) };
        if answer != region {
            self.talk.say(&format!("  {answer} is a zone; its region is {region}."))?;
            self.zone = Some(answer);
        }
        if self.draft.region().as_ref() != Some(&region) {
            self.zone = self.zone.take().filter(|zone| zone.starts_with(&region));
        }
        self.draft.set_hyper(REGION, json!(region));
        Ok(())
    }

    fn instance_profile(&mut self) -> Result<(), NoAnswer> {
        let stands = self.draft.hyper("iam_arn").or_else(|| self.draft.hyper("iam_name"));
        let shown = stands.as_deref().unwrap_or_default();
        let question = Question {
            flag: "--instance-profile",
            given: self.given.instance_profile.as_deref(),
            prompt: format!(
                "Enter IAM instance profile (name or ARN) for the new instances (leave blank for none) [{shown}]:"
            ),
            default: stands.clone(),
            optional: true,
            ..Question::default()
        };
        let draft = &self.draft;
        let profile = self.talk.ask(&question, |answer| {
            draft.check_hyper(profile_key(answer), &json!(answer)).map(|()| answer.to_owned())
        })?;
        if let Some(profile) = profile {
            self.draft.set_hyper("iam_arn", Value::Null);
            self.draft.set_hyper("iam_name", Value::Null);
            self.draft.set_hyper(profile_key(&profile), json!(profile));
            let used = if profile.is_empty() { Value::Null } else { json!(true) };
            self.draft.set_hyper("use_iam_instance_profile", used);
        }
        Ok(())
    }

    /// The git user and password.
    pub(super) fn git(&mut self) -> Result<(), NoAnswer> {
        self.talk.say("\nGIT credentials:")?;
        let stands = self.draft.hyper("git_user");
        let shown = stands.as_deref().unwrap_or_default();
        let question = Question {
            flag: "--git-user",
            given: self.given.git_user.as_deref(),
            prompt: format!(
                "Enter GIT username for repository cloning (leave blank for SSH key authentication): [{shown}]"
            ),
            default: stands.clone(),
            optional: true,
            ..Question::default()
        };
        let user = self.talk.ask(&question, |answer| Ok::<_, String>(answer.to_owned()))?;
        let same = user.is_none() || user == stands;
        if let Some(user) = user {
            self.draft.set_hyper("git_user", json!(user));
        }
        let Some(user) = self.draft.hyper("git_user") else {
            if self.talk.mode != Mode::Keep {
                self.draft.set_hyper("git_pass", Value::Null);
            }
            return self.talk.say("Git repository cloning will be using SSH keys");
        };
        self.git_password(&user, same)?;
        self.talk.say(&format!(
            "Git repository cloning will be using user={STARRED_USER} password={STARRED_PASSWORD}"
        ))
    }

    fn git_password(&mut self, user: &str, same: bool) -> Result<(), NoAnswer> {
        let stands = self.draft.hyper("git_pass").filter(|_| same);
        let shown = stands.as_ref().map_or_else(String::new, |_| format!(" [{STARRED_PASSWORD}]"));
        let question = Question {
            flag: "--git-pass",
            given: self.given.git_pass.as_deref(),
            prompt: format!("Enter password for user '{user}'{shown}:"),
            default: stands,
            optional: (self.env)(GIT_PASSWORD_VARIABLE).is_some(),
            secret: true,
            ..Question::default()
        };
        if let Some(password) = self.talk.ask(&question, |answer| Ok::<_, String>(answer.to_owned()))? {
            self.draft.set_hyper("git_pass", json!(password));
        }
        Ok(())
    }
}

/// The region that is meant: itself, or that of a zone.
fn region_of(answer: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<&str, String> {
    let verdict = check(answer);
    match answer.strip_suffix(|c: char| c.is_ascii_lowercase()) {
        Some(stem) if verdict.is_err() && check(stem).is_ok() => Ok(stem),
        Some(_) | None => verdict.map(|()| answer),
    }
}

/// A key's last characters, enough to know it by.
fn ending(key: &str) -> String {
    const KNOWN_BY: usize = 4;
    let hidden = key.chars().count().saturating_sub(KNOWN_BY).max(KNOWN_BY);
    format!("{STARRED_USER}{}", key.chars().skip(hidden).collect::<String>())
}

fn profile_key(profile: &str) -> &'static str {
    if profile.starts_with("arn:") { "iam_arn" } else { "iam_name" }
}

/// Keys have no blanks within; a paste may bring some.
fn one_word(answer: &str) -> Result<String, String> {
    let key = answer.trim();
    if key.contains(char::is_whitespace) {
        return Err("holds a blank, which no key does; paste it again".to_owned());
    }
    Ok(key.to_owned())
}
