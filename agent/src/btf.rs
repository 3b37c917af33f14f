//! The running kernel's type information (BTF), which tells where it keeps what the programs read.

use std::{fs, io};

use btfparse::{Offset, Readable, Result as BtfResult, TypeInformation};

/// Where the kernel shows it.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// `lockdown=confidentiality` forbids BPF programs to read kernel memory.
pub(crate) fn kernel_memory_is_locked() -> bool {
    fs::read_to_string("/sys/kernel/security/lockdown")
        .is_ok_and(|modes| modes.contains("[confidentiality]"))
}

/// The offset of a member of a struct, bytes.
pub(crate) fn offset(btf: &TypeInformation, name: &str, member: &str) -> Option<u32> {
    match btf.offset_of(btf.id_of(name)?, member).ok()? {
        (_, Offset::ByteOffset(bytes)) => Some(bytes),
        (_, Offset::BitOffsetAndSize(..)) => None,
    }
}

/// Reads a file of type information.
pub(crate) struct BtfFile(pub(crate) Vec<u8>);

impl Readable for BtfFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> BtfResult<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.0.get(start..)?.get(..buffer.len()));
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}
