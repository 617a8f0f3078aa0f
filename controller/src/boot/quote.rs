//! Text as a program may hold it: one shell word, or one HOCON string. Whatever is in it stays inert.

/// The text as a single word of bash. A NUL, which no word can hold, is left out.
pub(super) fn shell(text: &str) -> String {
    let mut word = String::with_capacity(text.len() + 2);
    word.push('\'');
    for char in text.chars() {
        match char {
            '\'' => word.push_str(r"'\''"),
            '\0' => {}
            plain => word.push(plain),
        }
    }
    word.push('\'');
    word
}

/// The text as a quoted string of HOCON, as ClearML's parser reads it.
pub(super) fn hocon(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Assignments at the head of a script, one a line.
pub(crate) fn assignments<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> String {
    values.into_iter().fold(String::new(), |mut text, (name, value)| {
        text.push_str(name);
        text.push('=');
        text.push_str(&shell(&value));
        text.push('\n');
        text
    })
}

/// Text that was written on another system, with the line ends of this one.
pub(super) fn unix_lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn through_bash(text: &str) -> Vec<u8> {
        let script = format!("{}printf '%s' \"$VALUE\"", assignments([("VALUE", text.to_owned())]));
        let ended = Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert!(ended.status.success());
        assert!(ended.stderr.is_empty());
        ended.stdout
    }

    #[test]
    fn nasty_words_come_out_of_bash_as_they_went_in() {
        for text in [
            "",
            "'",
            "$(touch /tmp/never) `touch /tmp/never` ${HOME} \\ \" ' ; & | > < * ? ~ ! #",
            "ümläut 你好 🚀",
            "line\nline\r\n\ttab",
            "-n",
            "'\\''",
            "\u{202e}right to left\u{7f}",
        ] {
            assert_eq!(through_bash(text), text.as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_comes_out_of_bash_as_it_went_in(text in "[^\0]{0,60}", meta in "['\"$`\\\\(){};&|<>!*\n ]{0,30}") {
            let both = format!("{text}{meta}{text}");
            prop_assert_eq!(through_bash(&both), both.as_bytes());
        }
    }

    #[test]
    fn a_nul_is_left_out() {
        assert_eq!(shell("a\0b"), "'ab'");
    }
}
