//! What Sidestep can do on a kernel, found out by trying: `make kernels`.

mod report;
mod run;
mod survey;

pub use report::{Kernel, Report, Suite};
pub use run::{Plan, Where, run};
pub use survey::{Interception, On, SelfTest, Survey, Torture, survey};
