//! The process that the self-test puts into a cgroup of its own: it makes the network namespace, and is both ends of every
//! connection. Its capture listeners make it the proxy; its other listener is an application's.

use std::{io, net::TcpListener};

use sidestep_kernel::{netns::own_cookie, process::enter_new_netns};

use super::{
    Check, INBOUND, Proves, Said,
    bench::{Bench, ask, hear, say},
    checks,
};
use crate::sandbox::facts;

/// Does every check, and ends.
pub fn run() -> io::Result<()> {
    hear()?;
    enter_new_netns()?;
    facts::bring_lo_up()?;
    say(&Said::Cookie(own_cookie()?))?;
    hear()?;
    let bench = Bench {
        proxy: TcpListener::bind(("127.0.0.1", INBOUND))?,
        proxy6: TcpListener::bind(("::1", INBOUND)).ok(),
        application: TcpListener::bind(("127.0.0.1", 8080))?,
    };
    let mut into_application = None;
    for (name, proves, check) in checks::ALL {
        // Where it is not seen how applications read nothing is ever put into them.
        if proves == Proves::IntoApplication
            && !*into_application.get_or_insert_with(|| ask(&Said::Into).is_ok_and(|yes| yes == 1))
        {
            continue;
        }
        let failure = check(&bench).err();
        let check = Check {
            name: name.to_owned(),
            proves,
            failure,
        };
        say(&Said::Checked(check))?;
    }
    say(&Said::Done)
}
