//! What an instance is put into and reached by: subnets, security groups, key pairs, the default network.

use aws_sdk_ec2::types;

use crate::client::Client;
use crate::error::{Error, of_sdk};
use crate::listing::{unsigned, whole};

const GROUPS: &str = "describe security groups";
const KEY_PAIRS: &str = "describe key pairs";
const SUBNETS: &str = "describe subnets";
const ATTRIBUTES: &str = "describe account attributes";

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-0123456789abcdef0`.
    pub id: String,
    /// Its tag `Name`.
    pub name: Option<String>,
    /// The network that it is a part of.
    pub vpc: String,
    /// The zone that it lies in.
    pub zone: String,
    /// `10.0.1.0/24`.
    pub cidr: String,
    /// How many instances it has addresses left for.
    pub free_addresses: u32,
    /// Where instances of its zone go if no subnet is named.
    pub is_default: bool,
    /// Whether its instances get a public address.
    pub public_addresses: bool,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// `sg-0123456789abcdef0`.
    pub id: String,
    /// Unique in its network.
    pub name: String,
    /// In words.
    pub description: String,
    /// The network that it belongs to.
    pub vpc: Option<String>,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// Traffic that a security group lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `tcp`, `udp`, `icmp`, a protocol's number, or `-1` for all.
    pub protocol: String,
    /// First and last; `None` for all.
    pub ports: Option<(u16, u16)>,
    /// With whom: `0.0.0.0/0`, `::/0`.
    pub cidrs: Vec<String>,
    /// With members of these groups.
    pub groups: Vec<String>,
    /// With the addresses of these lists, which EC2 does not tell here.
    pub prefix_lists: Vec<String>,
}

/// What EC2 says of the account in this region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The network of instances for which none is named; an account may have none.
    pub default_vpc: Option<String>,
    /// How many on-demand instances may run, by the old count; quotas of vCPUs count today.
    pub max_instances: Option<u32>,
}

impl Rule {
    /// Whether this lets TCP through at a port, with whomever.
    pub fn takes_tcp(&self, port: u16) -> bool {
        let protocol = matches!(self.protocol.as_str(), "tcp" | "6" | "-1");
        let ports =
            self.protocol == "-1" || self.ports.is_none_or(|(first, last)| (first..=last).contains(&port));
        protocol && ports
    }
}

impl Client {
    /// Every subnet of the region, by id.
    ///
    /// # Errors
    /// By meaning.
    pub async fn subnets(&self) -> Result<Vec<Subnet>, Error> {
        let pages = self.sdk.describe_subnets().into_paginator().items().send();
        let found = whole(SUBNETS, pages.collect::<Result<Vec<_>, _>>()).await?;
        let mut subnets: Vec<Subnet> = found.iter().filter_map(subnet).collect();
        subnets.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(subnets)
    }

    /// Every security group of the region, by id.
    ///
    /// # Errors
    /// By meaning.
    pub async fn security_groups(&self) -> Result<Vec<SecurityGroup>, Error> {
        let pages = self.sdk.describe_security_groups().into_paginator().items().send();
        let found = whole(GROUPS, pages.collect::<Result<Vec<_>, _>>()).await?;
        let mut groups: Vec<SecurityGroup> = found.iter().filter_map(group).collect();
        groups.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(groups)
    }

    /// The names of the region's key pairs, in order.
    ///
    /// # Errors
    /// By meaning.
    pub async fn key_pairs(&self) -> Result<Vec<String>, Error> {
        let reply = self.sdk.describe_key_pairs().send().await.map_err(|error| of_sdk(KEY_PAIRS, &error))?;
        let names = reply.key_pairs().iter().filter_map(types::KeyPairInfo::key_name);
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// The account's default network and old limits.
    ///
    /// # Errors
    /// By meaning.
    pub async fn account(&self) -> Result<Account, Error> {
        let reply = self.sdk.describe_account_attributes().send().await;
        let reply = reply.map_err(|error| of_sdk(ATTRIBUTES, &error))?;
        let value = |name: &str| {
            let attribute = reply.account_attributes().iter().find(|it| it.attribute_name() == Some(name))?;
            attribute.attribute_values().first()?.attribute_value().filter(|value| *value != "none")
        };
        Ok(Account {
            default_vpc: value("default-vpc").map(str::to_owned),
            max_instances: value("max-instances").and_then(|value| value.parse().ok()),
        })
    }
}

fn subnet(subnet: &types::Subnet) -> Option<Subnet> {
    Some(Subnet {
        id: subnet.subnet_id()?.to_owned(),
        name: subnet
            .tags()
            .iter()
            .find(|tag| tag.key() == Some("Name"))
            .and_then(types::Tag::value)
            .map(str::to_owned),
        vpc: subnet.vpc_id().unwrap_or_default().to_owned(),
        zone: subnet.availability_zone().unwrap_or_default().to_owned(),
        cidr: subnet.cidr_block().unwrap_or_default().to_owned(),
        free_addresses: unsigned(subnet.available_ip_address_count()),
        is_default: subnet.default_for_az().unwrap_or_default(),
        public_addresses: subnet.map_public_ip_on_launch().unwrap_or_default(),
    })
}

fn group(group: &types::SecurityGroup) -> Option<SecurityGroup> {
    Some(SecurityGroup {
        id: group.group_id()?.to_owned(),
        name: group.group_name().unwrap_or_default().to_owned(),
        description: group.description().unwrap_or_default().to_owned(),
        vpc: group.vpc_id().map(str::to_owned),
        ingress: group.ip_permissions().iter().map(rule).collect(),
        egress: group.ip_permissions_egress().iter().map(rule).collect(),
    })
}

fn rule(permission: &types::IpPermission) -> Rule {
    let port = |number: Option<i32>| number.and_then(|number| u16::try_from(number).ok());
    let of_four = permission.ip_ranges().iter().filter_map(types::IpRange::cidr_ip);
    let of_six = permission.ipv6_ranges().iter().filter_map(types::Ipv6Range::cidr_ipv6);
    let groups = permission.user_id_group_pairs().iter().filter_map(types::UserIdGroupPair::group_id);
    let lists = permission.prefix_list_ids().iter().filter_map(types::PrefixListId::prefix_list_id);
    Rule {
        protocol: permission.ip_protocol().unwrap_or("-1").to_owned(),
        ports: port(permission.from_port()).zip(port(permission.to_port())),
        cidrs: of_four.chain(of_six).map(str::to_owned).collect(),
        groups: groups.map(str::to_owned).collect(),
        prefix_lists: lists.map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: &str, ports: Option<(u16, u16)>) -> Rule {
        let protocol = protocol.to_owned();
        Rule { protocol, ports, cidrs: Vec::new(), groups: Vec::new(), prefix_lists: Vec::new() }
    }

    #[test]
    fn a_rule_is_read_by_protocol_and_ports() {
        assert!(rule("-1", None).takes_tcp(8790));
        assert!(rule("tcp", Some((8000, 9000))).takes_tcp(8790));
        assert!(rule("6", Some((8790, 8790))).takes_tcp(8790));
        assert!(!rule("tcp", Some((443, 443))).takes_tcp(8790));
        assert!(!rule("udp", None).takes_tcp(8790));
    }
}
