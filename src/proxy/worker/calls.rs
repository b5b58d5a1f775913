//! The system calls that the worker makes: sockets, memory, threads, clocks, look-ups in tables of the datapath's. All others fail with EPERM, so that what
//! comes to run in it can neither start programs nor open files, trace others, or use what the kernel has of late.
//! Sockets are of TCP only: with its one capability, others (netlink, raw) would be a way to reconfigure the network.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Whether it is so: on architectures whose calls are known.
pub fn deny_others() -> io::Result<bool> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => TargetArch::x86_64,
        "aarch64" => TargetArch::aarch64,
        _ => return Ok(false),
    };
    let rules = rules().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)?;
    Ok(true)
}

/// A call with no condition is allowed with any arguments; with conditions, if all of one list are true.
fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let is = |argument, value: i64| {
        // As the kernel reads it: 32 bits.
        let value = u64::from(value as u32);
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    // Beside the type stand flags.
    let stream = || {
        let (mask, stream) = (SeccompCmpOp::MaskedEq(0xf), libc::SOCK_STREAM as u64);
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, mask, stream)
    };
    let tcp = |family: i32| {
        let protocol = is(2, libc::IPPROTO_TCP.into())?;
        SeccompRule::new(vec![is(0, family.into())?, stream()?, protocol])
    };
    let only = |argument, value| SeccompRule::new(vec![is(argument, value)?]);
    let mut rules: BTreeMap<_, _> = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![tcp(libc::AF_INET)?, tcp(libc::AF_INET6)?]);
    // Interfaces and routes are changed by ioctl on any socket.
    rules.insert(libc::SYS_ioctl, vec![only(1, libc::FIONBIO as i64)?]);
    rules.insert(libc::SYS_bpf, vec![only(0, LOOK_UP)?]);
    // Netfilter's tables are changed by options of any socket of IP.
    let option =
        |level: i32, name: i32| SeccompRule::new(vec![is(1, level.into())?, is(2, name.into())?]);
    let options = vec![
        only(1, libc::SOL_SOCKET.into())?,
        only(1, libc::IPPROTO_TCP.into())?,
        option(libc::SOL_IP, libc::IP_TRANSPARENT)?,
        option(libc::SOL_IPV6, libc::IPV6_TRANSPARENT)?,
    ];
    rules.insert(libc::SYS_setsockopt, options);
    rules.insert(libc::SYS_prctl, vec![only(0, libc::PR_SET_NAME.into())?]);
    Ok(rules)
}

/// `BPF_MAP_LOOKUP_ELEM` (bpf(2)).
const LOOK_UP: i64 = 1;

const CALLS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_splice,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use rustix::io::Errno;
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketType, ipproto, socket, sockopt};

    use super::*;
    use crate::kernel::sys;

    fn make_a_map() -> Result<(), Errno> {
        let made = sys::map_create(libbpf_rs::MapType::Array, "x", 4, 4, 1, 0);
        made.map(|_| ()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }

    /// A filter is the thread's own.
    #[test]
    fn sockets_are_of_tcp_and_all_else_is_refused() {
        let tried = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            if !deny_others().unwrap() {
                return None;
            }
            let open = |family, kind| socket(family, kind, None).map(|_| ());
            let tcp = |family| socket(family, SocketType::STREAM, Some(ipproto::TCP));
            let sctp = || socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP));
            let v4 = tcp(AddressFamily::INET);
            let option = |option: &dyn Fn(&OwnedFd) -> Result<(), Errno>| {
                v4.as_ref().map_err(|errno| *errno).and_then(option)
            };
            Some([
                v4.as_ref().map(|_| ()).map_err(|errno| *errno),
                tcp(AddressFamily::INET6).map(|_| ()),
                option(&|socket| sockopt::set_tcp_nodelay(socket, true)),
                sys::may_look_up().map(|_| ()).map_err(|_| Errno::PERM),
                make_a_map(),
                sctp().map(|_| ()),
                // Where netfilter's tables are.
                option(&|socket| sockopt::set_ip_ttl(socket, 9)),
                open(AddressFamily::INET, SocketType::DGRAM),
                open(AddressFamily::INET, SocketType::RAW),
                open(AddressFamily::NETLINK, SocketType::RAW),
                open(AddressFamily::PACKET, SocketType::RAW),
                open(AddressFamily::UNIX, SocketType::STREAM),
                File::open("/proc/self/status").map(|_| ()).map_err(|_| Errno::PERM),
                Command::new("/bin/true").spawn().map(|_| ()).map_err(|_| Errno::PERM),
            ])
        });
        if let Some([v4, v6, nodelay, look_up, refused @ ..]) = tried.join().unwrap() {
            assert_eq!([v4, v6, nodelay, look_up], [Ok(()); 4]);
            assert!(refused.iter().all(|tried| *tried == Err(Errno::PERM)), "{refused:?}");
        }
    }
}
