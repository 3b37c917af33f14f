//! Runs the demo: makes the pods of each variant, then measures the variants in turn, round by round.

use std::time::Duration;

use anyhow::{Context, ensure};
use sidestep_kit::{
    app::Seen,
    envoy, load,
    mesh::{Mesh, Requests},
    traffic::{self, Load},
};

use crate::{
    interrupt,
    report::{NotMeasured, Report, Traffic, VariantReport},
    variant::{Variant, iptables_rules, tracked},
};

/// Requests of our own client before each measurement: these are looked at one by one.
const CHECKED: usize = 20;

/// Failed requests that are reported and no more: one of so many.
const FEW: u64 = 2000;

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
    pub(crate) connections: u32,
    pub(crate) variants: Vec<Variant>,
}

impl Plan {
    /// What can be known to be missing before anything is made.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        // SAFETY: geteuid has no arguments and always succeeds.
        let user = unsafe { libc::geteuid() };
        ensure!(user == 0, "needs root: it makes network namespaces");
        for (at, variant) in self.variants.iter().enumerate() {
            ensure!(
                !self.variants[..at].contains(variant),
                "variant {variant} is named twice"
            );
        }
        envoy::program()?;
        load::tool("wrk")?;
        Ok(())
    }

    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let (mut meshes, mut not_measured) = (Vec::new(), Vec::new());
        for variant in self.variants.iter().copied() {
            interrupt::check()?;
            eprintln!("demo: {variant}: two pods with a sidecar each");
            match variant.prepare() {
                Ok(mesh) => meshes.push((mesh, VariantReport::new(variant))),
                Err(reason) => {
                    eprintln!("demo: {variant}: not measured: {reason}");
                    not_measured.push(NotMeasured { variant, reason });
                }
            }
        }
        for round in 1..=self.rounds {
            for at in order(round, meshes.len()) {
                let (mesh, report) = &mut meshes[at];
                if round > 1 {
                    // Connections between the sidecars stay for an hour; each round shall have its own luck with workers.
                    mesh.start_sidecars();
                }
                self.measure(mesh, report)?;
                eprintln!(
                    "demo: round {round} of {}: {:<19} {}",
                    self.rounds,
                    report.variant,
                    report.latest()
                );
            }
        }
        let variants = meshes.into_iter().map(|(mesh, mut report)| {
            report.iptables_rules = [mesh.client(), mesh.server()].map(iptables_rules);
            report.programmed_us = report.variant.programmed_us(&mesh);
            report
        });
        let variants = variants.collect();
        eprintln!("demo: removing the pods");
        Ok(Report {
            rounds: self.rounds,
            seconds: self.duration.as_secs(),
            connections: self.connections,
            variants,
            not_measured,
        })
    }

    fn measure(&self, mesh: &Mesh, report: &mut VariantReport) -> anyhow::Result<()> {
        for traffic in Traffic::ALL {
            interrupt::check()?;
            let close = traffic == Traffic::ConnectionPerRequest;
            let before = mesh.requests();
            let answers = mesh
                .get(CHECKED, close)
                .with_context(|| format!("{}: the first requests", report.variant))?;
            report.answered_by(&answers);
            check(report.variant, &answers)?;
            let load = Load {
                connections: self.connections,
                traffic: if close {
                    traffic::Traffic::HttpOnce
                } else {
                    traffic::Traffic::Http
                },
                duration: self.duration,
                path: "/bytes/64".into(),
            };
            let cpu = mesh.cpu();
            let measured = mesh.load(&load, interrupt::happened)?;
            let cpu = mesh.cpu() - cpu;
            if close {
                // Entries stay for a while after their connections, so that this is what the traffic left.
                report.tracked([mesh.client(), mesh.server()].map(tracked));
            }
            report.requests_failed += measured.errors;
            // A sidecar may close a connection just as it is used again, however it is redirected; more than that is news.
            ensure!(
                measured.errors * FEW <= measured.requests,
                "{}: {} of {} requests failed",
                report.variant,
                measured.errors,
                measured.requests
            );
            let sent = measured.requests + answers.len() as u64;
            let seen = if report.variant.redirects() {
                mesh.wait_for_requests(before, sent)
            } else {
                mesh.requests() - before
            };
            check_seen(report.variant, sent, seen)?;
            report.count(sent, seen);
            report.past_tcp = report.variant.past_tcp(mesh);
            ensure!(
                report.variant != Variant::Shortcut || report.past_tcp > 0,
                "{}: no message went past TCP",
                report.variant
            );
            report.add(traffic, &measured, cpu);
        }
        Ok(())
    }
}

/// Every second round the other way round, so that what drifts favours nobody.
fn order(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

fn check(variant: Variant, answers: &[Seen]) -> anyhow::Result<()> {
    for answer in answers {
        let proven = answer.headers.get("x-forwarded-client-cert");
        ensure!(
            variant.redirects() == proven.is_some_and(|cert| cert.contains("/sa/client")),
            "{variant}: the server saw the wrong caller: {answer:?}"
        );
    }
    Ok(())
}

/// A sidecar may have seen more: `wrk` does not count what it had in flight when its time was over.
fn check_seen(variant: Variant, sent: u64, seen: Requests) -> anyhow::Result<()> {
    let least = seen.outbound.min(seen.inbound);
    ensure!(
        if variant.redirects() {
            least >= sent
        } else {
            seen.outbound + seen.inbound == 0
        },
        "{variant}: {sent} requests sent, the client's sidecar saw {}, the server's {}",
        seen.outbound,
        seen.inbound
    );
    Ok(())
}
