//! `sidestep-torture`: see `make torture`.

use clap::Parser;
use sidestep_agent::shortcut::{Allowed, Mode, Options, Reach};
use sidestep_tests::torture::{Flow, World, worker};

#[derive(Debug, Parser)]
enum Command {
    /// A process of a pod; started by the other commands.
    Worker,
    /// Quick
    Quick {
        #[arg(long, default_value = "rule")]
        mode: String,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        #[arg(long, default_value_t = 8)]
        at_a_time: u64,
    },
}

fn main() -> std::io::Result<()> {
    match Command::parse() {
        Command::Worker => worker::obey(),
        Command::Quick {
            mode,
            count,
            at_a_time,
        } => {
            let mode = match mode.as_str() {
                "rule" => Some(Mode::Rule),
                "pass" => Some(Mode::Pass),
                "naive" => Some(Mode::Naive),
                _ => None,
            };
            let options = mode.map(|mode| Options {
                mode,
                ..Options::default()
            });
            let allowed = Allowed {
                reach: Reach::Node,
                into_application: true,
            };
            let world = World::new(options, allowed);
            let mut from = 0;
            for steer in [false, true] {
                world.steer_packets(steer);
                for flow in Flow::ALL {
                    for v6 in [false, true] {
                        let start = std::time::Instant::now();
                        let report = world.play(flow, v6, from, count, at_a_time);
                        from += count;
                        println!("{flow:?} v6={v6} rps={steer} {:?} {report:?}", start.elapsed());
                        println!("{:?}", world.tally());
                    }
                }
            }
            Ok(())
        }
    }
}
