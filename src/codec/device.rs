//! Where a codec computes. Feature gates end here.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A computing device, chosen at run time among those compiled in.
///
/// Devices differ in the low bits of what they compute: reconstructions, and the query of a search, so that
/// near ties may swap. Codes, once written, decode to the same integers everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Device {
    /// burn's `flex` backend: all cores, SIMD. Always there.
    #[default]
    Cpu,
    /// burn's older CPU backend; cargo feature `ndarray`.
    NdArray,
    /// The default GPU, through Vulkan, Metal, DirectX 12 or WebGPU; cargo feature `wgpu`.
    Wgpu,
}

impl Device {
    /// Every device this build can name.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::NdArray, Self::Wgpu];

    /// The devices compiled into this build.
    pub fn compiled_in() -> Vec<Self> {
        Self::ALL.into_iter().filter(|device| device.is_compiled_in()).collect()
    }

    /// Whether this build has the device's backend.
    pub fn is_compiled_in(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    /// The device's name, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::NdArray => "ndarray",
            Self::Wgpu => "wgpu",
        }
    }

    pub(crate) fn burn(self) -> Result<burn::tensor::Device> {
        match self {
            Self::Cpu => Ok(burn::tensor::Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(
                deprecated,
                reason = "burn prefers flex; the feature exists for those who compare the two"
            )]
            Self::NdArray => Ok(burn::tensor::Device::ndarray()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => open_wgpu(),
            #[cfg(not(all(feature = "ndarray", feature = "wgpu")))]
            missing => Err(Error::Device {
                device: missing.name(),
                cause: format!("this build does not have it; build with --features {}", missing.name()),
            }),
        }
    }
}

/// burn looks for an adapter when a device is first used and panics where there is none: asked here, once, so
/// that a machine without a GPU gets an error.
#[cfg(feature = "wgpu")]
fn open_wgpu() -> Result<burn::tensor::Device> {
    use burn::tensor::{Device as BurnDevice, DeviceKind, Tensor};
    std::panic::catch_unwind(|| {
        let device = BurnDevice::wgpu(DeviceKind::DefaultDevice);
        Tensor::<1>::zeros([1], &device).into_data();
        device
    })
    .map_err(|_| Error::Device {
        device: "wgpu",
        cause: "no adapter was found; install a Vulkan driver (Mesa's software one will do)".to_owned(),
    })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|device| device.name() == name)
            .ok_or_else(|| Error::argument("a device", "cpu, ndarray or wgpu", format!("{name:?}")))
    }
}
