//! Reports that were not measured.

use std::time::Duration;

use sidestep_kit::{load::Measured, mesh::CpuTime};

use super::{Report, Traffic, VariantReport};
use crate::variant::Variant;

/// Requests per second and µs of kernel time per request, of each round of each variant; the same for all traffic.
pub(super) fn report(variants: &[(Variant, &[(f64, f64)])]) -> Report {
    let variants = variants.iter().map(|(variant, rounds)| {
        let mut report = VariantReport::new(*variant);
        for (rate, kernel_us) in *rounds {
            for traffic in Traffic::ALL {
                add(&mut report, traffic, *rate, *kernel_us);
            }
        }
        if *variant == Variant::Iptables {
            report.iptables_rules = [18, 18];
            report.conntrack_entries = [12_345, 40];
        }
        report
    });
    Report {
        rounds: 3,
        seconds: 1,
        connections: 8,
        variants: variants.collect(),
        not_measured: Vec::new(),
    }
}

/// Another round under one kind of traffic.
pub(super) fn add(report: &mut VariantReport, traffic: Traffic, rate: f64, kernel_us: f64) {
    let measured = Measured {
        requests: 1000,
        rate,
        errors: 0,
    };
    let cpu = CpuTime {
        user: Duration::from_millis(40),
        kernel: Duration::from_secs_f64(kernel_us / 1000.0),
    };
    report.add(traffic, &measured, cpu);
}
