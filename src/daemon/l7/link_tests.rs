//! A worker that is slow, hangs, or lies.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::*;

/// A link, what hears it, and the worker's end.
fn link() -> (Arc<Link>, JoinHandle<()>, Channel) {
    let (own, theirs) = Channel::pair().unwrap();
    let link = Arc::new(Link::new(own, None));
    let hears = Arc::clone(&link);
    (link, std::thread::spawn(move || hears.listen(|_| {})), theirs)
}

fn next(worker: &Channel) -> Order {
    loop {
        match worker.receive::<Order>() {
            Ok((order, _)) => return order,
            Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                let fd = PollFd::from_borrowed_fd(worker.as_fd(), PollFlags::IN);
                let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert!(poll(&mut [fd], Some(&patience)).unwrap() > 0, "no order");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn who_only_counts_never_ends_it_and_takes_no_other_s_answer() {
    let (link, _hears, worker) = link();
    assert!(link.count().is_none(), "it is late");
    assert!(!link.is_over());
    assert_eq!(next(&worker), Order::Count {});
    // Late as it is, it is not asked again.
    assert!(link.count().is_none());
    let orders = Arc::clone(&link);
    let ordered = std::thread::spawn(move || orders.order(&Order::Forget { number: 7 }, &[]));
    assert_eq!(next(&worker), Order::Forget { number: 7 });
    // Busy: at once.
    assert!(link.count().is_none());
    let counts = Counts { allowed: 3, ..Counts::default() };
    worker.send(&Report::Counts { counts, open: 1, lost: 0 }, &[]).unwrap();
    worker.send(&Report::Done {}, &[]).unwrap();
    worker.send(&Report::Refused { why: "no \u{7}".to_owned() }, &[]).unwrap();
    match ordered.join().unwrap() {
        Err(Unheeded::Refused(why)) => assert_eq!(why, "no \\u{7}"),
        other => panic!("{other:?}"),
    }
    assert!(!link.is_over());
    assert_eq!(lock(&link.said).counted.unwrap().counts.allowed, 3);
}

#[test]
fn a_deadline_is_one_for_all_that_waits() {
    let (link, hears, worker) = link();
    let end = Instant::now() + Duration::from_millis(200);
    let orders = [1, 2, 3].map(|number| {
        let link = Arc::clone(&link);
        std::thread::spawn(move || link.order_by(&Order::Forget { number }, &[], end))
    });
    for ordered in orders {
        assert!(matches!(ordered.join().unwrap(), Err(Unheeded::Broken(_))));
    }
    assert!(Instant::now() < end + Duration::from_secs(2));
    assert!(link.is_over());
    hears.join().unwrap();
    assert!(matches!(link.order(&Order::Drain {}, &[]), Err(Unheeded::Broken(_))));
    drop(worker);
}

#[test]
fn what_makes_no_sense_ends_it() {
    let unasked = serde_json::to_value(Report::Done {}).unwrap();
    for said in [serde_json::json!({"report": "nonsense"}), serde_json::json!(7), unasked] {
        let (link, hears, worker) = link();
        worker.send(&said, &[]).unwrap();
        hears.join().unwrap();
        assert!(link.is_over(), "{said}");
        assert!(matches!(worker.receive::<Order>(), Err(ChannelError::Over)), "{said}");
    }
}
