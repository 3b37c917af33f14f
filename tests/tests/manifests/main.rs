//! The chart and what is made of it: no cluster and no privilege needed.

mod files;
mod flags;
mod images;
mod metrics;
mod monitoring;
mod objects;
mod policy;
mod refusals;
mod rights;
mod values;
mod versions;

/// Settings that switch on whatever can be switched on, with certificates of the webhook's own.
pub(crate) const EVERYTHING: &[&str] = &[
    "enrolment=opt-in",
    "istioCni=gate-first",
    "shortcut.reach=node",
    "shortcut.most=pod",
    "shortcut.limitBytes=16777216",
    "probeTimeoutSeconds=86400",
    "avoidUnsupportedNodes=true",
    "labelUnsupportedNodes=true",
    "readiness.percent=50",
    "readiness.minutes=60",
    "waiting.reportSeconds=30",
    "waiting.deleteSeconds=600",
    "uninstall.acceleratedPods=roll-back",
    "uninstall.timeoutSeconds=3600",
    "certificates.managed.lifetimeSeconds=3600",
    "image.registry=registry.example/sidestep",
    "image.tag=v9",
    "image.pullSecrets={one,two}",
    "extraLabels.team=mesh",
    "webhook.replicas=3",
    "webhook.excludedNamespaces={kube-system,sidestep-system,other}",
    "webhook.tolerations[0].operator=Exists",
    "webhook.affinity.podAntiAffinity.x=y",
    "webhook.podLabels.a=b",
    "webhook.podAnnotations.a=b",
    "agent.allowRawSockets=true",
    "agent.cgroup=/sys/fs/cgroup/pods",
    "agent.extraArgs={--api-patience=300,--sandbox-patience=30}",
    "agent.mountBpffs=true",
    "agent.maxUnavailable=2",
    "agent.seLinuxOptions.type=spc_t",
    "agent.podLabels.a=b",
    "agent.podAnnotations.a=b",
    "resourceQuota=always",
    "--set-json=networkPolicy.metricsFrom=[{\"podSelector\":{\"matchLabels\":{\"app\":\"prometheus\"}}}]",
    "podMonitor.enabled=true",
    "podMonitor.labels.release=prometheus",
    "monitoring.scrapeAnnotations=true",
    "monitoring.rules.enabled=true",
    "monitoring.rules.labels.release=prometheus",
    "monitoring.rules.runbooks=https://wiki.example/sidestep",
    "monitoring.dashboard.enabled=true",
];

/// Certificates that somebody else makes.
pub(crate) const PROVIDED: &[&str] = &[
    "certificates.mode=provided",
    "certificates.provided.secretName=tls",
    "certificates.provided.caBundle=QUJD",
];

/// The same, by cert-manager.
pub(crate) const CERT_MANAGER: &[&str] = &[
    "certificates.mode=provided",
    "certificates.provided.secretName=tls",
    "certificates.provided.certManager=sidestep-system/webhook",
];

/// Little of anything.
pub(crate) const LITTLE: &[&str] = &[
    "networkPolicy.enabled=false",
    "webhook.priorityClassName=",
    "agent.priorityClassName=",
    "webhook.nodeSelector=null",
    "webhook.affinity=null",
    "--set-json=webhook.excludedNamespaces=[]",
    "--set-json=agent.tolerations=[]",
    "agent.affinity=null",
    "agent.nodeSelector=null",
];

/// All of them.
pub(crate) const SETTINGS: [&[&str]; 5] = [&[], EVERYTHING, PROVIDED, CERT_MANAGER, LITTLE];
