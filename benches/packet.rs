//! What a packet costs, by BPF_PROG_TEST_RUN, from gate to delivery. Needs root.

#[path = "../tests/packet/frame.rs"]
#[allow(dead_code)]
mod frame;
#[path = "../tests/packet/measure.rs"]
mod measure;
#[path = "../tests/packet/world.rs"]
#[allow(dead_code)]
mod world;

fn main() {
    let gates = std::thread::spawn(measure::gates).join();
    println!("gate pair load: {:?}", gates.expect("measured"));
    for v6 in [false, true] {
        let family = if v6 { "v6" } else { "v4" };
        let costs = std::thread::spawn(move || measure::packets(v6)).join().expect("measured");
        println!(
            "established {family}: {} ns, {} look-up(s)",
            costs.established_ns, costs.established_lookups
        );
        println!(
            "first {family}: {} ns (median of {} runs of one; an established packet in such: {})",
            costs.first_ns, costs.first_samples, costs.single_ns
        );
    }
    std::thread::spawn(measure::policies).join().expect("measured");
}
