//! Who asks, and how many vCPUs that account may run: from the services beside EC2 that know.

use crate::client::Client;
use crate::codes::Meaning;
use crate::error::{Error, of_sdk};
use crate::launch::Market;

const WHO: &str = "get caller identity";
const QUOTA: &str = "get service quota";

/// Whose rights the calls have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Twelve digits.
    pub account: String,
    /// `arn:aws:iam::123456789012:user/autoscaler`.
    pub arn: String,
}

/// Families of instance types that share a quota of vCPUs, by market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// A, C, D, H, I, M, R, T, Z.
    Standard,
    /// G and VT.
    Graphics,
    /// P; as spot without P5.
    Compute,
    /// P5 as spot.
    ComputeP5,
    /// Inf.
    Inferentia,
    /// Trn.
    Trainium,
    /// DL.
    DeepLearning,
    /// F.
    Fpga,
    /// X.
    Memory,
    /// U, on demand alone.
    HighMemory,
    /// HPC, on demand alone.
    Hpc,
}

impl Bucket {
    /// The quota that counts for an instance type; `None` for a family of which none is known.
    pub fn of(instance_type: &str, market: Market) -> Option<Self> {
        let family = instance_type.split('.').next().unwrap_or_default();
        let letters: String = family.chars().take_while(char::is_ascii_alphabetic).collect();
        Some(match (letters.as_str(), market) {
            ("p", Market::Spot) if family.starts_with("p5") => Self::ComputeP5,
            ("p", Market::Spot | Market::OnDemand) => Self::Compute,
            ("g" | "gr" | "vt", _) => Self::Graphics,
            ("inf", _) => Self::Inferentia,
            ("trn", _) => Self::Trainium,
            ("dl", _) => Self::DeepLearning,
            ("f", _) => Self::Fpga,
            ("x", _) => Self::Memory,
            ("u", Market::OnDemand) => Self::HighMemory,
            ("hpc", Market::OnDemand) => Self::Hpc,
            ("a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z", _) => Self::Standard,
            (_, Market::Spot | Market::OnDemand) => return None,
        })
    }

    /// Its code at Service Quotas, and its name there.
    fn quota(self, market: Market) -> Option<(&'static str, &'static str)> {
        Some(match (self, market) {
            (Self::Standard, Market::OnDemand) => {
                ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances")
            }
            (Self::Standard, Market::Spot) => {
                ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests")
            }
            (Self::Graphics, Market::OnDemand) => ("L-DB2E81BA", "Running On-Demand G and VT instances"),
            (Self::Graphics, Market::Spot) => ("L-3819A6DF", "All G and VT Spot Instance Requests"),
            (Self::Compute, Market::OnDemand) => ("L-417A185B", "Running On-Demand P instances"),
            (Self::Compute, Market::Spot) => ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
            (Self::ComputeP5, Market::Spot) => ("L-C4BD4855", "All P5 Spot Instance Requests"),
            (Self::Inferentia, Market::OnDemand) => ("L-1945791B", "Running On-Demand Inf instances"),
            (Self::Inferentia, Market::Spot) => ("L-B5D1601B", "All Inf Spot Instance Requests"),
            (Self::Trainium, Market::OnDemand) => ("L-2C3B7624", "Running On-Demand Trn instances"),
            (Self::Trainium, Market::Spot) => ("L-6B0D517C", "All Trn Spot Instance Requests"),
            (Self::DeepLearning, Market::OnDemand) => ("L-6E869C2A", "Running On-Demand DL instances"),
            (Self::DeepLearning, Market::Spot) => ("L-85EED4F7", "All DL Spot Instance Requests"),
            (Self::Fpga, Market::OnDemand) => ("L-74FC7D96", "Running On-Demand F instances"),
            (Self::Fpga, Market::Spot) => ("L-88CF9481", "All F Spot Instance Requests"),
            (Self::Memory, Market::OnDemand) => ("L-7295265B", "Running On-Demand X instances"),
            (Self::Memory, Market::Spot) => ("L-E3A00192", "All X Spot Instance Requests"),
            (Self::HighMemory, Market::OnDemand) => ("L-43DA4232", "Running On-Demand High Memory instances"),
            (Self::Hpc, Market::OnDemand) => ("L-F7808C92", "Running On-Demand HPC instances"),
            (Self::ComputeP5, Market::OnDemand) | (Self::HighMemory | Self::Hpc, Market::Spot) => {
                return None;
            }
        })
    }

    /// Its name at Service Quotas.
    pub fn name(self, market: Market) -> &'static str {
        self.quota(market).map_or("no quota", |(_, name)| name)
    }
}

impl Client {
    /// Whose rights the calls have. Nobody needs a permission to ask this.
    ///
    /// # Errors
    /// By meaning: `Denied` if the keys are not accepted.
    pub async fn caller(&self) -> Result<Caller, Error> {
        let reply = self.sts.get_caller_identity().send().await.map_err(|error| of_sdk(WHO, &error))?;
        Ok(Caller {
            account: reply.account().unwrap_or_default().to_owned(),
            arn: reply.arn().unwrap_or_default().to_owned(),
        })
    }

    /// How many vCPUs of these types may run at once in this market.
    ///
    /// # Errors
    /// By meaning.
    pub async fn vcpu_quota(&self, bucket: Bucket, market: Market) -> Result<u32, Error> {
        let Some((code, _)) = bucket.quota(market) else {
            return Err(Error::new(Meaning::Invalid, QUOTA, "these types have no quota in this market"));
        };
        let call = self.quotas.get_service_quota().service_code("ec2").quota_code(code);
        let reply = call.send().await.map_err(|error| of_sdk(QUOTA, &error))?;
        let value = reply.quota().and_then(|quota| quota.value());
        // A quota is a whole number that AWS writes with a fraction.
        value
            .filter(|value| (0.0..=f64::from(u32::MAX)).contains(value))
            .map(|value| value as u32)
            .ok_or_else(|| Error::new(Meaning::Other, QUOTA, "the answer has no value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_counts_against_its_own_quota() {
        for (name, market, bucket) in [
            ("g4dn.xlarge", Market::Spot, Some(Bucket::Graphics)),
            ("gr6.4xlarge", Market::OnDemand, Some(Bucket::Graphics)),
            ("p4d.24xlarge", Market::Spot, Some(Bucket::Compute)),
            ("p5.48xlarge", Market::Spot, Some(Bucket::ComputeP5)),
            ("p5.48xlarge", Market::OnDemand, Some(Bucket::Compute)),
            ("m5.large", Market::OnDemand, Some(Bucket::Standard)),
            ("im4gn.large", Market::OnDemand, Some(Bucket::Standard)),
            ("inf2.xlarge", Market::Spot, Some(Bucket::Inferentia)),
            ("trn1.2xlarge", Market::Spot, Some(Bucket::Trainium)),
            ("u7i-12tb.224xlarge", Market::Spot, None),
            ("mac2.metal", Market::OnDemand, None),
        ] {
            assert_eq!(Bucket::of(name, market), bucket, "{name} {market:?}");
            if let Some(bucket) = bucket {
                assert!(bucket.quota(market).is_some(), "{name} {market:?}");
            }
        }
    }
}
