//! A ClearML server and an EC2 on loopback, speaking the real wire protocols, for tests, the demo, and anyone who
//! wants to look around. Instances are processes of this machine.

pub mod clearml;
pub mod ec2;
mod imds;
pub mod instances;
pub mod standin;

use std::io;

use ec2::{Ec2, Ec2Error};

/// What both halves are to be like.
#[derive(Default)]
pub struct Options {
    /// The ClearML server.
    pub clearml: clearml::Options,
    /// The EC2 and its machines.
    pub ec2: ec2::Options,
}

/// A sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The ClearML half.
    #[error("starting the sandbox's clearml server")]
    ClearMl(#[source] io::Error),
    /// The EC2 half.
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
}

/// A running sandbox. Dropping it ends its instances, too, but does not wait for them.
pub struct Sandbox {
    /// The ClearML server; its handle looks behind the wire.
    pub clearml: clearml::Server,
    /// The EC2; itself a handle.
    pub ec2: Ec2,
}

impl Sandbox {
    /// Starts both halves. Needs a tokio runtime.
    ///
    /// # Errors
    /// If an address is taken, or no directory can be made for the instances.
    pub async fn start(options: Options) -> Result<Self, SandboxError> {
        let clearml = clearml::Server::start(options.clearml).await.map_err(SandboxError::ClearMl)?;
        Ok(Self { clearml, ec2: Ec2::start(options.ec2).await? })
    }

    /// Names and values by which the controller, ClearML's SDK and AWS's clients use it. Holds its keys.
    pub fn environment(&self) -> Vec<(String, String)> {
        let clearml = self.clearml.environment().map(|(name, value)| (name.to_owned(), value));
        clearml.into_iter().chain(self.ec2.environment()).collect()
    }

    /// Ends every process of every instance and stops serving. `false` if some would not end within 30 s.
    pub async fn shutdown(self) -> bool {
        self.ec2.shutdown().await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.ec2.close();
    }
}
