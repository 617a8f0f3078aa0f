//! EC2's error codes by meaning: the one table.
//!
//! A meaning is what the caller does next. Source: AWS's reference of EC2 error codes and its common errors, plus
//! the codes that services in front of EC2 answer with. A code that is not listed falls under a prefix
//! (`Invalid...`) or else under [`Meaning::Other`].

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// EC2 has none of this offering now, or a limit of the account, zone or subnet is reached: try another, or later.
    NoCapacity,
    /// Too many calls: the same call later.
    Throttled,
    /// What the call names is gone, or not there yet.
    Gone,
    /// Credentials, permissions or the account's standing: an operator must act.
    Denied,
    /// The request is wrong: an operator must act.
    Invalid,
    /// Anything else; **the call may have gone through**.
    Other,
}

const NO_CAPACITY: &[&str] = &[
    // AWS's pools.
    "InsufficientCapacityOnHost",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientVolumeCapacity",
    "ReservationCapacityExceeded",
    "UnfulfillableCapacity",
    "Unsupported",
    "VolumeTypeNotAvailableInZone",
    // The spot market.
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    // The account's limits.
    "AddressLimitExceeded",
    "HostLimitExceeded",
    "InstanceLimitExceeded",
    "MaxIOPSLimitExceeded",
    "NetworkInterfaceLimitExceeded",
    "VcpuLimitExceeded",
    "VolumeLimitExceeded",
    // The subnet.
    "InsufficientAddressCapacity",
    "InsufficientFreeAddressesInSubnet",
    "PrivateIpAddressLimitExceeded",
];

const THROTTLED: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

const GONE: &[&str] = &["IdempotentInstanceTerminated", "InvalidInstanceID.NotFound"];

const DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidSecurityToken",
    "MissingAuthenticationToken",
    "NotAuthorized",
    OPERATION_NOT_PERMITTED,
    "OptInRequired",
    "PendingVerification",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
];

const INVALID: &[&str] = &[
    "DryRunOperation",
    "EncryptedVolumesNotSupported",
    "IdempotentParameterMismatch",
    "InstanceTpmEkPubNotFound",
    "NonEBSInstance",
    "RequestResourceCountExceeded",
    "TagLimitExceeded",
    "TagPolicyViolation",
    "UnavailableHostRequirements",
    "UnknownParameter",
    "UnknownPrincipalType.Unsupported",
    "UnsupportedOperation",
    "UnsupportedProtocol",
    "UnsupportedTenancy",
    "ValidationError",
    "VPCIdNotSpecified",
    "VPCResourceNotSpecified",
];

/// `InvalidAMIID.NotFound`, `MissingParameter` and their many relatives.
const INVALID_PREFIXES: &[&str] = &["Invalid", "Malformed", "Missing"];

/// EC2 refuses to end an instance that is protected against it, and with it the whole call.
pub(crate) const OPERATION_NOT_PERMITTED: &str = "OperationNotPermitted";

/// The meaning of a code as EC2 sends it. A leading `Client.` or `Server.` does not matter.
pub fn meaning(code: &str) -> Meaning {
    let code = code.strip_prefix("Client.").or_else(|| code.strip_prefix("Server.")).unwrap_or(code);
    let table = [
        (NO_CAPACITY, Meaning::NoCapacity),
        (THROTTLED, Meaning::Throttled),
        (GONE, Meaning::Gone),
        (DENIED, Meaning::Denied),
        (INVALID, Meaning::Invalid),
    ];
    if let Some((_, meaning)) = table.iter().find(|(codes, _)| codes.contains(&code)) {
        return *meaning;
    }
    if INVALID_PREFIXES.iter().any(|prefix| code.starts_with(prefix)) {
        return Meaning::Invalid;
    }
    Meaning::Other
}
