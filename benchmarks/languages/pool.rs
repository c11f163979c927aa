//! The jobs of BenchmarkLanguages on threads and the channels of Rust's standard library. Prints
//! lines as go test does. Run by the report, or as: rustc -O pool.rs && ./pool

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

fn spin(rounds: u64, mut x: u64) -> u64 {
    for _ in 0..rounds {
        x = black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    }
    x
}

fn calibrate(nanos: f64) -> u64 {
    let rounds = 1 << 16;
    let best = (0..100)
        .map(|i| {
            let begin = Instant::now();
            black_box(spin(rounds, i));
            begin.elapsed().as_nanos()
        })
        .min()
        .unwrap();
    (rounds as f64 * nanos / best as f64) as u64
}

/// Hands n tasks to workers over a channel that they share, and collects the results of another.
fn run(workers: usize, rounds: u64, n: u64) {
    let (tasks, queue) = sync_channel::<u64>(128);
    let (results, collector) = sync_channel::<u64>(128);
    let queue = Arc::new(Mutex::new(queue));
    let handles: Vec<_> = (0..workers)
        .map(|_| {
            let (queue, results) = (queue.clone(), results.clone());
            thread::spawn(move || loop {
                let task = match queue.lock().unwrap().recv() {
                    Ok(task) => task,
                    Err(_) => return,
                };
                if rounds > 0 {
                    black_box(spin(rounds, task));
                }
                results.send(task + 1).unwrap();
            })
        })
        .collect();
    drop(results);
    let producer = thread::spawn(move || (0..n).for_each(|task| tasks.send(task).unwrap()));
    let total: u64 = collector.iter().sum();
    producer.join().unwrap();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    assert_eq!(total, n * (n + 1) / 2);
}

fn main() {
    let processors = thread::available_parallelism().unwrap();
    let compute = calibrate(20_000.0);
    for (task, rounds, n) in [("noop", 0, 200_000), ("20µs", compute, 10_000)] {
        for workers in [1, 2, 8] {
            let begin = Instant::now();
            run(workers, rounds, n);
            let took = begin.elapsed().as_nanos() as f64 / n as f64;
            println!("BenchmarkLanguages/task={task}/workers={workers}/impl=rust-mpsc-{processors} \t{n}\t{took:.1} ns/op");
        }
    }
}
