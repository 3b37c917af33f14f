//! The end of connections: nothing that went past TCP is lost, and the end is told.

use std::{net::Shutdown, time::Duration};

use rustix::net::sockopt;

use super::{
    bench::{Bench, past_tcp},
    pair::{Outcome, Pair, check, expect_end, pair, read, receive, send_many},
};

pub(super) fn half_close(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.proxy)?;
    past_tcp(|| send_many(&near, 0, 20_000))?;
    near.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    receive(&far, 0, 20_000)?;
    expect_end(&far)?;
    past_tcp(|| send_many(&far, 0, 20_000))?;
    drop(far);
    receive(&near, 0, 20_000)?;
    expect_end(&near)
}

pub(super) fn close_after_write(bench: &Bench) -> Outcome {
    for _ in 0..20 {
        let Pair { near, far } = pair(&bench.proxy)?;
        past_tcp(|| send_many(&near, 0, 3000))?;
        drop(near);
        receive(&far, 0, 3000)?;
        expect_end(&far)?;
    }
    Ok(())
}

/// Of a connection of which everything was read, and of one of which it was not: what is unread may come first.
pub(super) fn reset(bench: &Bench) -> Outcome {
    for unread in [0, 3000] {
        let Pair { near, far } = pair(&bench.proxy)?;
        past_tcp(|| send_many(&near, 0, 3000))?;
        receive(&far, 0, 3000)?;
        if unread > 0 {
            past_tcp(|| send_many(&near, 3000, unread))?;
        }
        sockopt::set_socket_linger(&near, Some(Duration::ZERO)).map_err(|e| e.to_string())?;
        drop(near);
        let mut buffer = vec![0; 2 * unread + 16];
        let mut at = 3000;
        let told = loop {
            match read(&far, &mut buffer) {
                Ok(got) if got > 0 => {
                    check(at, &buffer[..got])?;
                    at += got;
                }
                other => break other,
            }
        };
        match told {
            Err(error) if error != "stuck" && at <= 3000 + unread => {}
            other => return Err(format!("the reset is not told: {other:?}")),
        }
    }
    Ok(())
}
