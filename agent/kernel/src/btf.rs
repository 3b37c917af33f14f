//! The running kernel's type information (BTF), which tells where it keeps the members of its structs.

use std::{fs, io};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use btfparse::{
    Integer32Value, Offset, Readable, Result as BtfResult, TypeInformation, TypeVariant,
};
use thiserror::Error;

/// Where the kernel shows it.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why it cannot be had.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("{BTF}: {0}")]
    File(#[from] io::Error),
    /// The file can be read, and not understood.
    #[error("{BTF}: {0}")]
    Format(String),
}

/// Whether the kernel lets no BPF program read its memory, as `lockdown=confidentiality` forbids it.
///
/// Containers have no securityfs to read it from. There the kernel is asked: under that lockdown the verifier does not know
/// the helper that reads (`bpf_base_func_proto`).
pub fn kernel_memory_is_locked() -> bool {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) => modes.contains("[confidentiality]"),
        Err(_) => matches!(
            is_helper_supported(
                ProgramType::RawTracePoint,
                BpfHelper::BPF_FUNC_probe_read_kernel
            ),
            Ok(false)
        ),
    }
}

/// The types of the running kernel.
pub struct Types(TypeInformation);

impl Types {
    /// Reads all of them, which takes a hundred MiB for a moment.
    pub fn read() -> Result<Self, BtfError> {
        let file = BtfFile(fs::read(BTF)?);
        let types = TypeInformation::new(&file);
        types
            .map(Self)
            .map_err(|error| BtfError::Format(format!("{error:?}")))
    }

    /// The offset of a member of a struct, bytes. The name of a nested member has dots.
    pub fn offset(&self, name: &str, member: &str) -> Option<u32> {
        match self.0.offset_of(self.0.id_of(name)?, member).ok()? {
            (_, Offset::ByteOffset(bytes)) => Some(bytes),
            (_, Offset::BitOffsetAndSize(..)) => None,
        }
    }

    /// The number of an enumerator. Small enums of the kernel have 32-bit values.
    pub fn enumerator(&self, name: &str, which: &str) -> Option<u32> {
        let TypeVariant::Enum(values) = self.0.from_id(self.0.id_of(name)?)? else {
            return None;
        };
        let value = values.named_value_list().iter().find(|v| v.name == which)?;
        match value.value {
            Integer32Value::Unsigned(number) => Some(number),
            Integer32Value::Signed(number) => number.try_into().ok(),
        }
    }
}

/// Reads a file of type information.
struct BtfFile(Vec<u8>);

impl Readable for BtfFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> BtfResult<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.0.get(start..)?.get(..buffer.len()));
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
