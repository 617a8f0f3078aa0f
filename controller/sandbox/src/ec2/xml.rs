//! The XML that EC2 answers with: elements and text, no attributes but the namespace.

use std::fmt::Display;

use quick_xml::escape::partial_escape;

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// A document being written.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    /// `<name>value</name>`
    pub(crate) fn leaf(&mut self, name: &str, value: impl Display) -> &mut Self {
        let text = value.to_string();
        self.open(name);
        self.0.push_str(&partial_escape(text.as_str()));
        self.close(name)
    }

    /// `<name>value</name>`, or nothing.
    pub(crate) fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.leaf(name, value),
            None => self,
        }
    }

    /// `<name>...</name>`
    pub(crate) fn node(&mut self, name: &str, content: impl FnOnce(&mut Self)) -> &mut Self {
        self.open(name);
        content(self);
        self.close(name)
    }

    /// `<name><item>...</item>...</name>`
    pub(crate) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut content: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.node(name, |list| {
            for item in items {
                list.node("item", |xml| content(xml, item));
            }
        })
    }

    fn open(&mut self, name: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
    }

    fn close(&mut self, name: &str) -> &mut Self {
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
        self
    }
}

/// The whole answer to an action that succeeded.
pub(crate) fn success(action: &str, content: &Xml) -> String {
    let request = uuid::Uuid::new_v4();
    let content = &content.0;
    format!(
        r#"{HEAD}<{action}Response xmlns="{NAMESPACE}"><requestId>{request}</requestId>{content}</{action}Response>"#
    )
}

/// The whole answer of STS to an action that succeeded.
pub(crate) fn sts_success(action: &str, result: &[(&str, &str)]) -> String {
    let request = uuid::Uuid::new_v4();
    let mut content = Xml::default();
    for (name, value) in result {
        content.leaf(name, value);
    }
    let content = content.0;
    format!(
        r#"{HEAD}<{action}Response xmlns="{STS_NAMESPACE}"><{action}Result>{content}</{action}Result><ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></{action}Response>"#
    )
}

/// The whole answer of STS to a call that failed.
pub(crate) fn sts_failure(code: &str, message: &str) -> String {
    let request = uuid::Uuid::new_v4();
    let (code, message) = (partial_escape(code), partial_escape(message));
    format!(
        r#"{HEAD}<ErrorResponse xmlns="{STS_NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{request}</RequestId></ErrorResponse>"#
    )
}

/// The whole answer to a call that failed.
pub(crate) fn failure(code: &str, message: &str) -> String {
    let request = uuid::Uuid::new_v4();
    let (code, message) = (partial_escape(code), partial_escape(message));
    format!(
        "{HEAD}<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>{request}</RequestID></Response>"
    )
}
