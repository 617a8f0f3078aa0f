//! Projects: one of them names the server, so to speak, in the fleet's tag.

use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, Repeat};
use crate::error::{Error, subcode};
use crate::types::{Named, or_default};

impl Client {
    /// The id of the project with exactly this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn project(&self, name: &str) -> Result<Option<String>, Error> {
        // The server takes the name for a pattern.
        let query = json!({"name": format!("^{}$", escaped(name)), "only_fields": ["id", "name"]});
        let Listing { projects } = self.call("projects.get_all", &query, Repeat::Always).await?;
        // Two of one name can only stem from a race; all must choose the same.
        Ok(projects.into_iter().filter(|it| it.name.as_deref() == Some(name)).map(|it| it.id).min())
    }

    /// The id of the project with exactly this name, which is made if it is missing.
    ///
    /// # Errors
    /// `Refused` with [`subcode::INVALID_DATA`] for a name of fewer than 3 characters.
    pub async fn ensure_project(&self, name: &str) -> Result<String, Error> {
        if let Some(id) = self.project(name).await? {
            return Ok(id);
        }
        let created = self.call::<Created>("projects.create", &json!({"name": name}), Repeat::Unseen).await;
        let own = match created {
            Ok(Created { id }) => id,
            Err(error) if error.is_refusal(subcode::NOT_UNIQUE) => {
                return self.project(name).await?.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        Ok(self.project(name).await?.unwrap_or(own))
    }
}

fn escaped(name: &str) -> String {
    name.chars().fold(String::new(), |mut pattern, c| {
        if c.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default, deserialize_with = "or_default")]
    projects: Vec<Named>,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(super::escaped("Dev.Ops (1)/ü"), r"Dev\.Ops \(1\)\/ü");
    }
}
