//! What no waiting mends: another kernel, another processor or a reboot would.

use sidestep_kernel::storage::NoStorage;

use crate::{
    dataplane::DataplaneError, preflight::PreflightError, sandbox::discover::HierarchyError,
};

/// Whether the node, as it is, will never run Sidestep.
pub(super) fn is_for_good(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let preflight = cause.downcast_ref();
        let hierarchy = cause.downcast_ref();
        let storage = match cause.downcast_ref() {
            // It has no cause of its own.
            Some(DataplaneError::Storage(storage)) => Some(storage),
            _ => None,
        };
        matches!(
            preflight,
            Some(
                PreflightError::NoBtf
                    | PreflightError::NoProgramType(_)
                    | PreflightError::NotCgroup2 { .. }
            )
        ) || matches!(hierarchy, Some(HierarchyError::NotMounted))
            || storage.is_some_and(NoStorage::is_for_good)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn what_the_node_lacks_lasts_and_what_can_be_configured_does_not() {
        let lasting: [anyhow::Error; 2] = [
            PreflightError::NoBtf.into(),
            HierarchyError::NotMounted.into(),
        ];
        for error in lasting {
            let said = Err::<(), _>(error)
                .context("starting")
                .expect_err("it is one");
            assert!(is_for_good(&said), "{said:#}");
        }
        let mended = [
            PreflightError::NotRoot.into(),
            HierarchyError::Several(vec![]).into(),
            anyhow!("the API server is away"),
        ];
        for error in mended {
            assert!(!is_for_good(&error), "{error:#}");
        }
    }
}
