//! The one file with `unsafe`: bytes of plain structs, the memory-mapped state,
//! and the system calls that libbpf-rs does not wrap, or wraps with a fault.
//!
//! Everything here takes and returns owned or borrowed Rust values; no raw
//! pointer or descriptor leaves it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use libbpf_rs::{AsRawLibbpf, OpenObject, libbpf_sys};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::datapath::skel::endpoint::types::__sk_buff;
use super::datapath::{abi, skel};

/// Plain old data: a struct without padding bytes, valid for every bit pattern,
/// so that it can be copied from and to bytes.
///
/// # Safety
/// The implementor has no padding, no pointers, and no invalid values.
pub unsafe trait Pod: Copy + Default + 'static {}

macro_rules! pod {
    ($($ty:ty),* $(,)?) => { $(
        // SAFETY: an integer, or a `repr(C)` struct of integers whose padding is
        // explicit in abi.h; sizes are asserted there and in abi.rs.
        unsafe impl Pod for $ty {}
    )* };
}

pod!(
    u32,
    u64,
    abi::State,
    abi::Endpoint,
    abi::Address,
    abi::AddressValue,
    abi::PrefixKey,
    abi::PrefixValue,
    abi::PolicyKey,
    abi::PolicyValue,
    abi::Uplink,
    abi::Flow4Key,
    abi::Flow6Key,
    abi::Flow,
    abi::NatKey,
    abi::NatValue,
    abi::FragmentKey,
    abi::FragmentValue,
    abi::DropKey,
    abi::HitKey,
    abi::PublishedKey,
    abi::Published,
    abi::SourceBlock,
    abi::Traffic,
    abi::Budget,
    abi::Event,
    abi::Features,
    abi::Gate,
    skel::endpoint::types::porin_features,
    skel::uplink::types::porin_features,
    skel::gate::types::porin_gate,
);

pub fn bytes_of<T: Pod>(value: &T) -> &[u8] {
    bytes_of_slice(std::slice::from_ref(value))
}

pub fn bytes_of_slice<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: Pod has no padding, so all bytes are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Reads a `T` from the beginning of `bytes`; `None` if they are too few.
pub fn from_bytes<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and Pod is valid for every bit pattern.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// `state[0].generation`, mapped: the word whose store is a commit.
#[derive(Debug)]
pub struct StateWord {
    page: NonNull<AtomicU32>,
}

// SAFETY: the page is shared memory, accessed by atomic operations only, and
// unmapped only when the value is dropped.
unsafe impl Send for StateWord {}
// SAFETY: as above.
unsafe impl Sync for StateWord {}

const PAGE: usize = 4096;

impl StateWord {
    pub fn map(state: BorrowedFd<'_>) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                state,
                0,
            )?
        };
        NonNull::new(page.cast())
            .map(|page| Self { page })
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: mapped, aligned to a page, and alive as long as self.
        unsafe { self.page.as_ref() }
    }

    pub fn load(&self) -> u32 {
        self.word().load(Ordering::Acquire)
    }

    pub fn store(&self, generation: u32) {
        self.word().store(generation, Ordering::Release);
    }
}

impl Drop for StateWord {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and no reference outlives self.
        // It cannot fail for a mapping that exists.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

/// libbpf returns 0 or a negative errno, and sets errno.
fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

pub const ENOTSUPP: i32 = 524;

/// A new map, without BTF.
pub fn map_create(
    ty: libbpf_rs::MapType,
    name: &str,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: flags,
        ..Default::default()
    };
    // SAFETY: name and opts are valid for the call.
    let fd = unsafe {
        libbpf_sys::bpf_map_create(
            ty.into(),
            name.as_ptr(),
            key_size as u32,
            value_size as u32,
            max_entries,
            &opts,
        )
    };
    check(fd)?;
    // SAFETY: a descriptor that the kernel has just given us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a descriptor only.
    check(unsafe { libbpf_sys::bpf_map_freeze(map.as_raw_fd()) })
}

/// Inserts or overwrites one element. For the sizes, the map's must match.
pub fn map_update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    // SAFETY: the kernel reads key_size and value_size bytes; the callers' types
    // are those of the maps (asserted in abi.rs, checked when maps are opened).
    check(unsafe {
        libbpf_sys::bpf_map_update_elem(
            map.as_raw_fd(),
            ptr::from_ref(key).cast(),
            ptr::from_ref(value).cast(),
            0,
        )
    })
}

/// The value of one key. For the sizes, the map's must match: for a table of tables they are those of
/// a number, and the value is the kernel's number of the table.
pub fn map_look_up<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = V::default();
    // SAFETY: the kernel reads key_size and writes value_size bytes; the callers' types are those of
    // the maps (asserted in abi.rs, checked when maps are opened).
    check(unsafe {
        libbpf_sys::bpf_map_lookup_elem(
            map.as_raw_fd(),
            ptr::from_ref(key).cast(),
            ptr::from_mut(&mut value).cast(),
        )
    })?;
    Ok(value)
}

/// Whether this thread may look into maps that it has descriptors of. Before Linux 5.19 nobody without privileges may,
/// if `kernel.unprivileged_bpf_disabled` is set. The kernel looks at rights before it looks at descriptors.
pub fn may_look_up() -> io::Result<bool> {
    let (key, mut value) = (0u64, 0u64);
    // SAFETY: -1 is no map, so that nothing is read or written.
    let tried = check(unsafe {
        libbpf_sys::bpf_map_lookup_elem(
            -1,
            ptr::from_ref(&key).cast(),
            ptr::from_mut(&mut value).cast(),
        )
    });
    match tried.map_err(|error| error.raw_os_error()) {
        Err(Some(errno)) if errno == Errno::BADF.raw_os_error() => Ok(true),
        Err(Some(errno)) if errno == Errno::PERM.raw_os_error() => Ok(false),
        Err(Some(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::ErrorKind::Other.into()),
    }
}

/// Another descriptor of a map, through which it can only be read.
pub fn map_read_only(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let opts = libbpf_sys::bpf_get_fd_by_id_opts {
        sz: size_of::<libbpf_sys::bpf_get_fd_by_id_opts>() as _,
        open_flags: libbpf_sys::BPF_F_RDONLY,
        ..Default::default()
    };
    // SAFETY: a number, and options that live through the call.
    Ok(owned(unsafe { libbpf_sys::bpf_map_get_fd_by_id_opts(map_id(map)?, &opts) })?)
}

/// As [`map_update`], for keys and values whose size only the map knows.
pub fn map_update_bytes(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut info = libbpf_sys::bpf_map_info::default();
    let mut len = size_of::<libbpf_sys::bpf_map_info>() as u32;
    // SAFETY: info is ours for the call.
    check(unsafe { libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut len) })?;
    if (info.key_size as usize, info.value_size as usize) != (key.len(), value.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel reads key_size and value_size bytes, which are there. (Maps per CPU, of
    // which it reads more, are none of ours.)
    check(unsafe {
        libbpf_sys::bpf_map_update_elem(
            map.as_raw_fd(),
            key.as_ptr().cast(),
            value.as_ptr().cast(),
            0,
        )
    })
}

/// Inserts or overwrites many elements in one call; how many were done is in the error.
pub fn map_update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (u32, io::Error)> {
    assert_eq!(keys.len(), values.len(), "one value per key");
    let mut count = keys.len() as u32;
    let opts = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as _,
        ..Default::default()
    };
    // SAFETY: both arrays hold `count` elements of the map's sizes.
    check(unsafe {
        libbpf_sys::bpf_map_update_batch(
            map.as_raw_fd(),
            keys.as_ptr().cast(),
            values.as_ptr().cast(),
            &mut count,
            &opts,
        )
    })
    .map_err(|error| (count, error))
}

/// Inserts or overwrites many elements, in one call where the kernel can: tries have no batches before
/// Linux 5.13, tables of tables none before 5.14. On an error some may have been done.
pub fn map_update_all<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    match map_update_batch(map, keys, values) {
        Err((_, error)) if error.raw_os_error() == Some(ENOTSUPP) => {
            keys.iter().zip(values).try_for_each(|(key, value)| map_update(map, key, value))
        }
        result => result.map_err(|(_, error)| error),
    }
}

/// Calls `f` with each key and value (of `value_size` bytes) of a map.
///
/// Goes on until the kernel says ENOENT: a batch shorter than asked for is not the
/// last one, as the next bucket may just not have fitted (libbpf-rs's own iterator
/// takes it for the end). A bucket larger than a batch (ENOSPC) gets a larger one.
pub fn map_each(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut f: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut batch = 1024usize;
    // The cursor is a u32 for hashes and a key for arrays: room for either.
    let mut cursor = vec![0u8; key_size.max(4)];
    let mut started = false;
    let mut keys = vec![0u8; batch * key_size];
    let mut values = vec![0u8; batch * value_size];
    loop {
        let mut count = batch as u32;
        let mut next = cursor.clone();
        // SAFETY: the buffers hold `count` keys and values of the map's sizes, the
        // cursors at least a key and a u32.
        let result = check(unsafe {
            libbpf_sys::bpf_map_lookup_batch(
                map.as_raw_fd(),
                if started { cursor.as_mut_ptr().cast() } else { ptr::null_mut() },
                next.as_mut_ptr().cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &mut count,
                ptr::null(),
            )
        });
        let last = match result {
            Ok(()) => false,
            Err(error) if is_absent(&error) => true,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) => {
                batch *= 2;
                keys.resize(batch * key_size, 0);
                values.resize(batch * value_size, 0);
                continue;
            }
            Err(error) if !started && lacks_batches(&error) => {
                return map_each_singly(map, key_size, value_size, f);
            }
            Err(error) => return Err(error),
        };
        let count = count as usize;
        for (key, value) in
            keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(count)
        {
            f(key, value);
        }
        if last {
            return Ok(());
        }
        cursor = next;
        started = true;
    }
}

/// Arrays per CPU have no batches before Linux 5.13.
fn lacks_batches(error: &io::Error) -> bool {
    let unknown = [ENOTSUPP, Errno::INVAL.raw_os_error(), Errno::OPNOTSUPP.raw_os_error()];
    error.raw_os_error().is_some_and(|errno| unknown.contains(&errno))
}

/// As [`map_each`], two system calls per element. What is deleted meanwhile may make it begin anew.
pub fn map_each_singly(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut f: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let next_key = |key: Option<&[u8]>| {
        let mut next = vec![0u8; key_size];
        // SAFETY: both keys have the map's key size; none at all asks for the first.
        let found = check(unsafe {
            libbpf_sys::bpf_map_get_next_key(
                map.as_raw_fd(),
                key.map_or(ptr::null(), |key| key.as_ptr().cast()),
                next.as_mut_ptr().cast(),
            )
        });
        match found {
            Ok(()) => Ok(Some(next)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut value = vec![0u8; value_size];
    let mut current = next_key(None)?;
    while let Some(key) = current {
        // Before `f`, which may delete this one.
        let next = next_key(Some(&key))?;
        // SAFETY: key and value have the map's sizes, those of all CPUs together if it is per CPU.
        let found = check(unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                map.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_mut_ptr().cast(),
            )
        });
        match found {
            Ok(()) => f(&key, &value),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        current = next;
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

/// Makes a socket one that the runtime can wait on.
pub fn wait_on(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is the owner's own, the same for as long as it lives, and it lives as long as
    // the registration.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// A descriptor that the service manager has passed to this process, by its number (sd_listen_fds(3)). None: there is no
/// such number, or it is one of the standard ones.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    const FIRST: i32 = 3;
    if number < FIRST {
        return None;
    }
    // SAFETY: it is only asked about; that it is there is what is asked.
    let there = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok();
    // SAFETY: the caller has it from the service manager's list, so that nothing in this process has opened it, and takes
    // each number once.
    there.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// What the kernel says of a loaded program.
#[derive(Clone, Debug, Default)]
pub struct ProgramInfo {
    pub id: u32,
    pub xlated_insns: u32,
    pub jited_len: u32,
    pub verified_insns: u32,
}

fn info(program: BorrowedFd<'_>, xlated: &mut [u64]) -> io::Result<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info {
        xlated_prog_insns: if xlated.is_empty() { 0 } else { xlated.as_mut_ptr() as u64 },
        xlated_prog_len: size_of_val(xlated) as u32,
        ..Default::default()
    };
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: info and, if asked for, the instruction buffer are ours for the call.
    check(unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut len)
    })?;
    Ok(info)
}

pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let info = info(program, &mut [])?;
    Ok(ProgramInfo {
        id: info.id,
        xlated_insns: info.xlated_prog_len / 8,
        jited_len: info.jited_prog_len,
        verified_insns: info.verified_insns,
    })
}

/// The instructions that the verifier left, one per word.
pub fn program_xlated(program: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    let len = info(program, &mut [])?.xlated_prog_len as usize / 8;
    let mut insns = vec![0u64; len];
    info(program, &mut insns)?;
    Ok(insns)
}

/// The kernel's number of a map.
pub fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_map_info::default();
    let mut len = size_of::<libbpf_sys::bpf_map_info>() as u32;
    // SAFETY: info is ours for the call.
    check(unsafe { libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut len) })?;
    Ok(info.id)
}

/// What BPF_PROG_TEST_RUN is to make of a packet's metadata, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestContext {
    pub ifindex: u32,
    /// Where it came into the host; 0: it is the host's own.
    pub ingress_ifindex: u32,
    pub mark: u32,
    pub cb: [u32; 5],
    pub gso_size: u32,
    pub gso_segs: u32,
}

/// A packet's fate.
#[derive(Clone, Debug)]
pub struct TestOutcome {
    pub retval: u32,
    /// Mean of one run, ns.
    pub duration_ns: u32,
    pub data: Vec<u8>,
    pub context: TestContext,
}

pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    context: TestContext,
) -> io::Result<TestOutcome> {
    let mut out = vec![0u8; packet.len() + 4096];
    // Padding too must be zero, or the kernel says EINVAL.
    // SAFETY: integers and raw pointers only: all zeroes are a value.
    let mut ctx_in: __sk_buff = unsafe { MaybeUninit::zeroed().assume_init() };
    ctx_in.ifindex = context.ifindex;
    ctx_in.ingress_ifindex = context.ingress_ifindex;
    ctx_in.mark = context.mark;
    ctx_in.cb = context.cb;
    ctx_in.gso_size = context.gso_size;
    ctx_in.gso_segs = context.gso_segs;
    let mut ctx_out = __sk_buff::default();
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: ptr::from_ref(&ctx_in).cast(),
        ctx_size_in: size_of::<__sk_buff>() as u32,
        ctx_out: ptr::from_mut(&mut ctx_out).cast(),
        ctx_size_out: size_of::<__sk_buff>() as u32,
        repeat: repeat as i32,
        ..Default::default()
    };
    // SAFETY: all buffers are ours and have the sizes given.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut opts) })?;
    out.truncate(opts.data_size_out as usize);
    Ok(TestOutcome {
        retval: opts.retval,
        duration_ns: opts.duration,
        data: out,
        context: TestContext {
            ifindex: ctx_out.ifindex,
            ingress_ifindex: ctx_out.ingress_ifindex,
            mark: ctx_out.mark,
            cb: ctx_out.cb,
            gso_size: ctx_out.gso_size,
            gso_segs: ctx_out.gso_segs,
        },
    })
}

/// The enumerators of an enum in an opened object's BTF.
pub fn enumerators(object: &OpenObject, name: &str) -> Vec<(String, i64)> {
    use libbpf_rs::btf::{Btf, types::Enum};
    // SAFETY: the object is open, and outlives the BTF, which ends here.
    let object = unsafe { object.as_libbpf_object().as_ref() };
    let Ok(Some(btf)) = Btf::from_bpf_object(object) else { return Vec::new() };
    let Some(found) = btf.type_by_name::<Enum<'_>>(name) else { return Vec::new() };
    found
        .iter()
        .filter_map(|member| Some((member.name?.to_str()?.to_owned(), member.value)))
        .collect()
}

/// Room for libbpf-rs to open an object in.
pub fn object_storage() -> MaybeUninit<OpenObject> {
    MaybeUninit::uninit()
}

/// Fails unless `fd` is a network namespace (ioctl_nsfs(2), `NS_GET_NSTYPE`).
pub fn check_network_namespace(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    const NS_GET_NSTYPE: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0xb7, 0x3);
    const CLONE_NEWNET: i32 = 0x4000_0000;

    struct NamespaceType;

    // SAFETY: the request takes no argument and returns the type as the call's result, so no memory
    // is read or written.
    unsafe impl rustix::ioctl::Ioctl for NamespaceType {
        type Output = i32;
        const IS_MUTATING: bool = false;

        fn opcode(&self) -> rustix::ioctl::Opcode {
            NS_GET_NSTYPE
        }

        fn as_ptr(&mut self) -> *mut std::ffi::c_void {
            std::ptr::null_mut()
        }

        unsafe fn output_from_ptr(
            output: rustix::ioctl::IoctlOutput,
            _: *mut std::ffi::c_void,
        ) -> rustix::io::Result<i32> {
            Ok(output)
        }
    }

    // SAFETY: as above; on another kind of file the request number is unknown and refused.
    let kind = unsafe { rustix::ioctl::ioctl(fd, NamespaceType) }?;
    if kind == CLONE_NEWNET { Ok(()) } else { Err(Errno::INVAL) }
}

/// What a link hangs on, and what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// 0 once the device is gone.
    pub ifindex: u32,
    pub program_id: u32,
}

/// Attaches a program to an interface by tcx (`BPF_LINK_CREATE`, Linux 6.6).
pub fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: libbpf_sys::bpf_attach_type,
) -> Result<OwnedFd, Errno> {
    let target = i32::try_from(ifindex).map_err(|_| Errno::INVAL)?;
    // SAFETY: no options are passed; the other arguments are numbers.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), target, attach_type, ptr::null())
    };
    owned(fd)
}

/// Attaches a program to a cgroup, beside others' (`BPF_LINK_CREATE`, Linux 5.7).
pub fn cgroup_link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: libbpf_sys::bpf_attach_type,
) -> Result<OwnedFd, Errno> {
    // SAFETY: no options are passed; the other arguments are numbers.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            cgroup.as_raw_fd(),
            attach_type,
            ptr::null(),
        )
    };
    owned(fd)
}

/// The kernel's number of the cgroup that a link hangs on; 0 once that is gone.
pub fn cgroup_of(link: BorrowedFd<'_>) -> Result<u64, Errno> {
    let info = raw_link_info(link)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_CGROUP {
        return Err(Errno::INVAL);
    }
    // SAFETY: for this type the kernel filled in this member; any bytes are valid for it.
    Ok(unsafe { info.__bindgen_anon_1.cgroup.cgroup_id })
}

/// What the kernel calls the calling thread's network namespace, for as long as it runs (Linux 5.14).
pub fn network_namespace_cookie() -> Result<u64, Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which is that large, and any are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    match result {
        0 => Ok(cookie),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Replaces a link's program in one step: no packet is without one.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no options are passed; the other arguments are numbers.
    let result =
        unsafe { libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), ptr::null()) };
    errno(result)
}

pub fn link_detach(link: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the argument is a number.
    errno(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) })
}

pub fn link_info(link: BorrowedFd<'_>) -> Result<LinkInfo, Errno> {
    let info = raw_link_info(link)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_TCX {
        return Err(Errno::INVAL);
    }
    // SAFETY: for this type the kernel filled in this member; any bytes are valid for it.
    let ifindex = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok(LinkInfo { ifindex, program_id: info.prog_id })
}

fn raw_link_info(link: BorrowedFd<'_>) -> Result<libbpf_sys::bpf_link_info, Errno> {
    let mut info = libbpf_sys::bpf_link_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is that large, and plain data.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            link.as_raw_fd(),
            ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    errno(result).map(|()| info)
}

/// Gives an object a name on bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the path is a string that ends in NUL and lives through the call.
    errno(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
}

/// Opens what a name on bpffs stands for.
pub fn pinned(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the path is a string that ends in NUL and lives through the call.
    owned(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

pub fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the argument is a number.
    owned(unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) })
}

/// A program's code, as the kernel digests it when it is loaded: equal code, equal tag. References to
/// maps, and so the values of constants, are left out of it.
pub fn program_tag(program: BorrowedFd<'_>) -> Result<[u8; 8], Errno> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is that large, and plain data;
    // it asks for no arrays.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    errno(result)?;
    Ok(info.tag)
}

/// Which indices of an array of programs or maps are taken.
pub fn occupied(map: BorrowedFd<'_>, entries: u32) -> Result<Vec<u32>, Errno> {
    let mut taken = Vec::new();
    for index in 0..entries {
        let mut id = 0u32;
        // SAFETY: keys and (for reading) values of these maps have 4 bytes, and so have these.
        let result = unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                map.as_raw_fd(),
                ptr::from_ref(&index).cast(),
                ptr::from_mut(&mut id).cast(),
            )
        };
        match errno(result) {
            Ok(()) => taken.push(index),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// A program for tc whose code is ready for the kernel. The verifier's log is asked for only after a
/// failure, and goes to ours.
pub fn program_load(
    name: &str,
    license: &str,
    code: &[libbpf_sys::bpf_insn],
) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let license = CString::new(license).map_err(|_| io::ErrorKind::InvalidInput)?;
    let load = |log: &mut [u8]| {
        let mut opts = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
            log_buf: if log.is_empty() { ptr::null_mut() } else { log.as_mut_ptr().cast() },
            log_size: log.len() as u32,
            log_level: u32::from(!log.is_empty()),
            ..Default::default()
        };
        // SAFETY: strings end in NUL, code and log are as long as said, all live through the call.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
                name.as_ptr(),
                license.as_ptr(),
                code.as_ptr(),
                code.len() as libbpf_sys::size_t,
                &mut opts,
            )
        };
        owned(fd)
    };
    load(&mut []).or_else(|_| {
        let mut log = vec![0u8; 1 << 20];
        load(&mut log).map_err(|errno| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            log::error!("the verifier: {}", String::from_utf8_lossy(&log[..end]));
            errno.into()
        })
    })
}

/// `r0 = 0` and `exit`.
const NOTHING: (u8, u8) = (0xb7, 0x95);

/// A program that does nothing, to probe with.
pub fn load_nothing() -> Result<OwnedFd, Errno> {
    let (zero, exit) = NOTHING;
    load_probe(&[zero, exit].map(|code| libbpf_sys::bpf_insn { code, ..Default::default() }))
}

/// One that compares and swaps a word of its stack, atomically.
pub fn load_compare_and_swap() -> Result<OwnedFd, Errno> {
    let insn = |code| libbpf_sys::bpf_insn { code, ..Default::default() };
    let on_stack = |code, imm| {
        let mut insn = libbpf_sys::bpf_insn { code, off: -8, imm, ..Default::default() };
        insn.set_dst_reg(10);
        insn
    };
    let (zero, exit) = NOTHING;
    // BPF_STX | BPF_MEM | BPF_DW, then BPF_STX | BPF_ATOMIC | BPF_DW with BPF_CMPXCHG (RFC 9669, section 5.3).
    let code = [insn(zero), on_stack(0x7b, 0), on_stack(0xdb, 0xf1), insn(zero), insn(exit)];
    load_probe(&code)
}

/// `r0 = 1` and `exit`: at sockets of a cgroup, for this hook; it lets everything be.
pub fn load_socket_probe(attach_type: libbpf_sys::bpf_attach_type) -> Result<OwnedFd, Errno> {
    let (zero, exit) = NOTHING;
    let mut code = [zero, exit].map(|code| libbpf_sys::bpf_insn { code, ..Default::default() });
    code[0].imm = 1;
    load_probe_as(libbpf_sys::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach_type, &code)
}

fn load_probe(code: &[libbpf_sys::bpf_insn]) -> Result<OwnedFd, Errno> {
    load_probe_as(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, 0, code)
}

fn load_probe_as(
    kind: libbpf_sys::bpf_prog_type,
    attach_type: libbpf_sys::bpf_attach_type,
    code: &[libbpf_sys::bpf_insn],
) -> Result<OwnedFd, Errno> {
    let mut opts = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
        expected_attach_type: attach_type,
        ..Default::default()
    };
    // SAFETY: name and licence end in NUL, the code is as long as said, all live through the call.
    owned(unsafe {
        libbpf_sys::bpf_prog_load(
            kind,
            c"porin_probe".as_ptr(),
            c"Apache-2.0".as_ptr(),
            code.as_ptr(),
            code.len() as libbpf_sys::size_t,
            &mut opts,
        )
    })
}

/// libbpf returns the negative error number.
fn errno(result: i32) -> Result<(), Errno> {
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(()) }
}

fn owned(fd: i32) -> Result<OwnedFd, Errno> {
    errno(fd)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A map by the kernel's number of it.
pub fn map_by_id(id: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the argument is a number.
    owned(unsafe { libbpf_sys::bpf_map_get_fd_by_id(id) })
}
