//! One machine type, field by field, in the document's order with the script's later fields in their places.

use serde_json::{Value, json};

use super::Wizard;
use super::choices::{Choice, Image, TypeFacts};
use super::dialogue::{Question, among};
use super::draft::{Fields, field_value, set, text};
use super::image::{Suggestion, facts_by_name, suggestion};
use super::screen::NoAnswer;

const FLAG: &str = "--resource";
const DEFAULT_TYPE: &str = "g4dn.4xlarge";
const DEFAULT_ZONE_LETTER: char = 'b';
const DEFAULT_DEVICE: &str = "/dev/xvda";
const DEFAULT_SIZE_GIB: u32 = 100;
const DEFAULT_VOLUME: &str = "gp2";

/// A field's prompt.
struct Field {
    key: &'static str,
    prompt: &'static str,
    style: Style,
    /// What Enter answers.
    default: Option<String>,
    optional: bool,
}

/// How a prompt shows its default.
#[derive(Clone, Copy)]
enum Style {
    /// `['gp2']`
    Quoted,
    /// `[100]`
    Plain,
}

impl Wizard<'_> {
    /// Asks for every field of a machine type; `known` are the fields of one that is being changed.
    pub(super) fn machine(&mut self, known: Option<&Fields>) -> Result<Fields, NoAnswer> {
        let mut fields = known.cloned().unwrap_or_default();
        let fresh = known.is_none();
        self.instance_type(&mut fields, fresh)?;
        let facts = self.facts(&fields);
        let spot = flag(&fields, "is_spot").unwrap_or(false);
        let cpu_only = flag(&fields, "cpu_only").unwrap_or(fresh && !facts.gpu);
        if let Some(cpu_only) = self.talk.confirm(FLAG, None, "CPU only?", cpu_only)? {
            set(&mut fields, "cpu_only", if cpu_only { json!(true) } else { Value::Null });
        }
        if let Some(spot) = self.talk.confirm(FLAG, None, "Use spot instances?", spot)? {
            fields.insert("is_spot".to_owned(), json!(spot));
        }
        self.place(&mut fields, fresh)?;
        let image = self.image(&mut fields, fresh, &facts)?;
        self.volume(&mut fields, fresh, image.as_ref())?;
        self.access(&mut fields)?;
        Ok(fields)
    }

    /// The fields of a machine type of which only some are given.
    pub(super) fn default_fields(&mut self, given: &Fields) -> Fields {
        let mut fields = given.clone();
        fields.entry("instance_type").or_insert_with(|| json!(DEFAULT_TYPE));
        let zone = self.default_zone(&fields);
        let mut default = |key: &str, value: Value| {
            if !given.contains_key(key) {
                fields.insert(key.to_owned(), value);
            }
        };
        default("is_spot", json!(false));
        let device = given.get("ebs_device_name").map_or(Some(DEFAULT_DEVICE.to_owned()), text);
        default("ebs_device_name", json!(DEFAULT_DEVICE));
        if device.is_some() && !given.contains_key("ebs_snapshot_id") {
            default("ebs_volume_size", json!(DEFAULT_SIZE_GIB));
            default("ebs_volume_type", json!(DEFAULT_VOLUME));
        }
        if !given.contains_key("subnet_id") {
            default("availability_zone", json!(zone));
        }
        let facts = self.facts(&fields);
        if !facts.gpu && !given.contains_key("cpu_only") {
            fields.insert("cpu_only".to_owned(), json!(true));
        }
        if !given.contains_key("ami_id") {
            let Suggestion { image, words } = self.suggestion(&facts);
            let _ = self.talk.say(&words);
            fields.insert("ami_id".to_owned(), json!(image));
        }
        fields.retain(|_, value| text(value).is_some() || value.is_object());
        fields
    }

    fn instance_type(&mut self, fields: &mut Fields, fresh: bool) -> Result<(), NoAnswer> {
        let default = fresh.then(|| DEFAULT_TYPE.to_owned());
        let prompt = "Select Amazon instance type";
        self.field(
            fields,
            Field { key: "instance_type", prompt, style: Style::Quoted, default, optional: false },
        )
    }

    /// Zone and subnet.
    fn place(&mut self, fields: &mut Fields, fresh: bool) -> Result<(), NoAnswer> {
        let default = if fresh { Some(self.default_zone(fields)) } else { None };
        let prompt = "Select availability zone";
        self.field(
            fields,
            Field { key: "availability_zone", prompt, style: Style::Quoted, default, optional: true },
        )?;
        let prompt = "Select the subnet id (leave blank for the zone's default subnet)";
        self.field(
            fields,
            Field { key: "subnet_id", prompt, style: Style::Plain, default: None, optional: true },
        )?;
        if fields.contains_key("subnet_id") {
            // A subnet has its own zone, and the reader warns of a second one.
            fields.remove("availability_zone");
        }
        Ok(())
    }

    fn image(
        &mut self,
        fields: &mut Fields,
        fresh: bool,
        facts: &TypeFacts,
    ) -> Result<Option<Image>, NoAnswer> {
        let mut default = None;
        if fresh {
            let Suggestion { image, words } = self.suggestion(facts);
            self.say_trouble()?;
            self.talk.say(&format!("  {words}"))?;
            default = Some(image);
        }
        let prompt = "Select the Amazon Machine Image id";
        let field = Field { key: "ami_id", prompt, style: Style::Quoted, default, optional: false };
        loop {
            self.field(fields, Field { default: field.default.clone(), ..field })?;
            let Some(image) = fields.get("ami_id").and_then(text) else { return Ok(None) };
            let found = self.choices.image(&image);
            self.say_trouble()?;
            match found {
                Some(None) => {
                    self.talk.say(&format!("  This region has no image {image}."))?;
                    fields.remove("ami_id");
                }
                Some(Some(found)) => {
                    if found.id != image {
                        self.talk
                            .say(&format!("  That is {} now; it is looked up at each launch.", found.id))?;
                    }
                    return Ok(Some(found));
                }
                None => return Ok(None),
            }
        }
    }

    fn volume(&mut self, fields: &mut Fields, fresh: bool, image: Option<&Image>) -> Result<(), NoAnswer> {
        let root = image.and_then(|image| image.root_device.clone());
        if let Some(root) = root.as_deref().filter(|root| fresh && *root != DEFAULT_DEVICE) {
            self.talk.say(&format!("  The image's own disk is {root}; another device is a second disk."))?;
        }
        let plain = |key: &'static str, prompt: &'static str, default: Option<String>| Field {
            key,
            prompt,
            style: Style::Quoted,
            default,
            optional: true,
        };
        let device = root.unwrap_or_else(|| DEFAULT_DEVICE.to_owned());
        // Without a device size and type mean nothing, and the reader says so: they are taken away for the while.
        let size = fields.remove("ebs_volume_size");
        let kind = fields.remove("ebs_volume_type");
        let snapshot = fields.remove("ebs_snapshot_id");
        self.field(fields, plain("ebs_device_name", "Enter the Amazon EBS device", fresh.then_some(device)))?;
        if !fields.contains_key("ebs_device_name") {
            return Ok(());
        }
        for (key, value) in [("ebs_volume_size", size), ("ebs_volume_type", kind)] {
            set(fields, key, value.unwrap_or_default());
        }
        if let Some(snapshot) = snapshot {
            // The snapshot's volume has its size and type.
            set(fields, "ebs_snapshot_id", snapshot);
            return Ok(());
        }
        let fallback = |known: bool, value: String| (fresh || !known).then_some(value);
        let known = fields.contains_key("ebs_volume_size");
        self.field(
            fields,
            Field {
                style: Style::Plain,
                ..plain(
                    "ebs_volume_size",
                    "Enter the Amazon EBS volume size (in GiB)",
                    fallback(known, DEFAULT_SIZE_GIB.to_string()),
                )
            },
        )?;
        let known = fields.contains_key("ebs_volume_type");
        self.field(
            fields,
            plain(
                "ebs_volume_type",
                "Enter the Amazon EBS volume type",
                fallback(known, DEFAULT_VOLUME.to_owned()),
            ),
        )
    }

    /// Key pair and security groups.
    fn access(&mut self, fields: &mut Fields) -> Result<(), NoAnswer> {
        for (key, prompt) in [
            ("key_name", "Select the Amazon key pair for SSH (leave blank for none)"),
            (
                "security_group_ids",
                "Select the security group ids, separated by commas (leave blank for the default)",
            ),
        ] {
            self.field(fields, Field { key, prompt, style: Style::Plain, default: None, optional: true })?;
        }
        Ok(())
    }

    fn field(&mut self, fields: &mut Fields, field: Field) -> Result<(), NoAnswer> {
        let Field { key, prompt, style, default, optional } = field;
        let default = fields.get(key).and_then(text).or(default);
        let shown = default.as_deref().unwrap_or_default();
        let prompt = match style {
            Style::Quoted if default.is_some() => format!("{prompt} ['{shown}']:"),
            Style::Quoted | Style::Plain => format!("{prompt} [{shown}]:"),
        };
        let offer = self.offer(key, fields);
        self.say_trouble()?;
        let question = Question {
            flag: FLAG,
            prompt,
            default,
            optional,
            choices: offer.choices.as_deref().unwrap_or_default(),
            ..Question::default()
        };
        let draft = &self.draft;
        let value = self.talk.ask(&question, |answer| {
            let value = field_value(key, answer);
            draft.check_field(fields, key, &value)?;
            offer.check(answer).map(|()| value)
        })?;
        if let Some(value) = value {
            set(fields, key, value);
        }
        Ok(())
    }

    /// What AWS has for a field of a machine type with these fields.
    pub(super) fn offer(&mut self, key: &str, fields: &Fields) -> Offer {
        let of = |key: &str| fields.get(key).and_then(text);
        let region = self.draft.region().unwrap_or_default();
        let place = format!(" in {region}");
        let all = |what, choices, place| Offer { what: Some(what), choices, place };
        match key {
            "instance_type" => all("instance type", self.choices.instance_types(), place),
            "availability_zone" => {
                let kind = of("instance_type").unwrap_or_default();
                let place = format!(" with {kind}{place}");
                all("availability zone", self.choices.zones(Some(&kind)), place)
            }
            "subnet_id" => {
                let zone = of("availability_zone");
                let place = zone.as_ref().map_or(place, |zone| format!(" in {zone}"));
                all("subnet", self.choices.subnets(zone.as_deref()), place)
            }
            "key_name" => all("key pair", self.choices.key_pairs(), place),
            "security_group_ids" => all("security group", self.choices.security_groups(), place),
            "ami_id" => Offer { what: None, choices: self.choices.images(), place },
            _ => Offer { what: None, choices: None, place },
        }
    }

    fn facts(&mut self, fields: &Fields) -> TypeFacts {
        let name = fields.get("instance_type").and_then(text).unwrap_or_default();
        self.choices.type_facts(&name).unwrap_or_else(|| facts_by_name(&name))
    }

    fn suggestion(&mut self, facts: &TypeFacts) -> Suggestion {
        let region = self.draft.region().unwrap_or_default();
        suggestion(self.choices.as_mut(), &region, facts)
    }

    /// The zone that was typed for a region, else the region's second, as the document has it; if AWS has the type
    /// in neither, the first that has it.
    fn default_zone(&mut self, fields: &Fields) -> String {
        let region = self.draft.region().unwrap_or_default();
        let zone = self.zone.clone().unwrap_or_else(|| format!("{region}{DEFAULT_ZONE_LETTER}"));
        let zones = self.offer("availability_zone", fields).choices.unwrap_or_default();
        if zones.iter().any(|known| known.value == zone) {
            return zone;
        }
        zones.first().map_or(zone, |first| first.value.clone())
    }
}

/// What AWS has for a field.
pub(super) struct Offer {
    /// What an answer is, if it has to be among the choices.
    what: Option<&'static str>,
    choices: Option<Vec<Choice>>,
    /// Where they are.
    place: String,
}

impl Offer {
    /// Whether AWS has what was answered, as far as that is known.
    pub(super) fn check(&self, answer: &str) -> Result<(), String> {
        let Some(what) = self.what else { return Ok(()) };
        let mut parts = answer.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.try_for_each(|part| among(self.choices.as_deref(), part, what, &self.place))
    }
}

fn flag(fields: &Fields, key: &str) -> Option<bool> {
    fields
        .get(key)
        .and_then(text)
        .map(|word| matches!(word.to_lowercase().as_str(), "true" | "yes" | "on" | "1"))
}
