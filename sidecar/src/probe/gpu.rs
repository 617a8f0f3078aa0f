//! GPUs by NVML, where its library is on the machine.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// One GPU at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// The model.
    pub name: String,
    /// 0 to 100.
    pub utilisation_percent: u32,
    /// In bytes.
    pub memory_used: u64,
    /// In bytes.
    pub memory_total: u64,
}

/// The machine's GPUs.
pub struct Gpus {
    nvml: Nvml,
}

impl Gpus {
    /// None without the library or a working driver. Blocks while the driver starts.
    pub fn open() -> Option<Self> {
        Some(Self { nvml: Nvml::init().ok()? })
    }

    /// All of them; one that does not answer is left out. Blocks as long as the driver does.
    pub fn read(&self) -> Vec<Gpu> {
        let count = self.nvml.device_count().unwrap_or(0);
        (0..count).filter_map(|index| self.one(index).ok()).collect()
    }

    fn one(&self, index: u32) -> Result<Gpu, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        Ok(Gpu {
            index,
            name: device.name()?,
            utilisation_percent: device.utilization_rates()?.gpu,
            memory_used: memory.used,
            memory_total: memory.total,
        })
    }
}
