//! The commands of bpf(2) that the BPF library lacks, each behind a safe function.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use libc::{c_int, c_long};

/// `enum bpf_attach_type`, the ones we use (include/uapi/linux/bpf.h).
#[expect(missing_docs, reason = "the kernel's own names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum AttachType {
    InetSockCreate = 2,
    SockOps = 3,
    SkMsgVerdict = 7,
    Inet4Connect = 10,
    Inet6Connect = 11,
    Udp4Sendmsg = 14,
    Udp6Sendmsg = 15,
    Udp4Recvmsg = 19,
    Udp6Recvmsg = 20,
    Getsockopt = 21,
    Setsockopt = 22,
    Inet4Getpeername = 29,
    Inet6Getpeername = 30,
    SkLookup = 36,
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_OBJ_PIN: c_int = 6;
const BPF_OBJ_GET: c_int = 7;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_PROG_QUERY: c_int = 16;
const BPF_LINK_CREATE: c_int = 28;
const BPF_LINK_UPDATE: c_int = 29;

/// `enum bpf_prog_type`: the type of `sk_lookup` programs.
const BPF_PROG_TYPE_SK_LOOKUP: u32 = 30;

/// Loads an `sk_lookup` program from instructions (`struct bpf_insn`, 8 bytes each). Where the kernel refuses it, `log`
/// holds what the verifier said.
pub(crate) fn load_sk_lookup(instructions: &[u64], log: &mut Vec<u8>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let mut attr = Attr {
        prog_type: BPF_PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"sidestep_inbound",
        prog_ifindex: 0,
        expected_attach_type: AttachType::SkLookup as u32,
    };
    attr.prog_name[15] = 0;
    let fd = bpf(BPF_PROG_LOAD, &mut attr).or_else(|_| {
        // The log costs time, so it is asked for only where there is something to read.
        log.resize(1 << 20, 0);
        attr.log_level = 1;
        attr.log_size = 1 << 20;
        attr.log_buf = log.as_mut_ptr() as u64;
        let answer = bpf(BPF_PROG_LOAD, &mut attr);
        let end = log.iter().position(|byte| *byte == 0);
        log.truncate(end.unwrap_or(log.len()));
        answer
    })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program; the link lives as long as its descriptor or its pin.
pub(crate) fn link_create(
    program: impl AsFd,
    target: impl AsFd,
    at: AttachType,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        prog_fd: raw(&program),
        target_fd: raw(&target),
        attach_type: at as u32,
        // Links on cgroups are multi by themselves; BPF_F_ALLOW_MULTI is refused here.
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a map of sockets, in place of the one it has. It stays with the map.
pub(crate) fn map_attach(program: impl AsFd, map: impl AsFd, at: AttachType) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
    }
    let mut attr = Attr {
        target_fd: raw(&map),
        attach_bpf_fd: raw(&program),
        attach_type: at as u32,
        attach_flags: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Replaces a link's program; no connection sees a moment without one.
pub(crate) fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: raw(&link),
        new_prog_fd: raw(&program),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Gives an object a name on a bpffs.
pub(crate) fn obj_pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: name.as_ptr() as u64,
        bpf_fd: raw(&object),
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens an object by its name on a bpffs.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: name.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a link is attached to: a cgroup's id or a network namespace's inode number. 0 once that is gone, or it was detached.
pub(crate) fn link_target(link: impl AsFd) -> io::Result<u64> {
    /// `BPF_LINK_TYPE_CGROUP` and `BPF_LINK_TYPE_NETNS` of `enum bpf_link_type`.
    const CGROUP: u32 = 3;
    const NETNS: u32 = 5;
    #[repr(C)]
    struct Attr {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    const INFO_LEN: u32 = 32;
    /// `struct bpf_link_info`, as long as those two kinds' is.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        pad: u32,
        target: u32,
        target_high: u32,
        attach_type: u32,
        more: u32,
    }
    const { assert!(size_of::<Info>() == INFO_LEN as usize) };
    let mut info = Info::default();
    let mut attr = Attr {
        bpf_fd: raw(&link),
        info_len: INFO_LEN,
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    match info.kind {
        CGROUP => Ok(u64::from(info.target_high) << 32 | u64::from(info.target)),
        NETNS => Ok(info.target.into()),
        _ => Err(io::Error::other("is a link to something else")),
    }
}

/// The ids of the programs attached directly to a cgroup, and the flags they were attached with (0: exclusively).
pub(crate) fn prog_query(cgroup: impl AsFd, at: AttachType) -> io::Result<(Vec<u32>, u32)> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
        // Some kernels write up to `query.revision` whatever the size they are told.
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut ids = [0_u32; 64]; // the kernel's own limit on programs of one cgroup and hook (BPF_CGROUP_MAX_PROGS)
    let mut attr = Attr {
        target_fd: raw(&cgroup),
        attach_type: at as u32,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        pad: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok((ids[..attr.prog_cnt as usize].to_vec(), attr.attach_flags))
}

pub(crate) fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// The bpf system call. `T` is the part of `union bpf_attr` that the command reads; the rest is zero.
pub(crate) fn bpf<T>(command: c_int, attr: &mut T) -> io::Result<c_int> {
    // SAFETY: `attr` points to `size_of::<T>()` initialised bytes, and the kernel takes shorter attributes as padded
    // with zeroes. Pointers inside it were made from live buffers by the callers.
    let answer: c_long = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        c_int::try_from(answer).map_err(io::Error::other)
    }
}
