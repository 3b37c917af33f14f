//! Long lists.

use std::fmt::Debug;

use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

/// Objects of a page.
const PAGE: u32 = 500;

/// Reads a list page by page and hands each object over, so that no list is in memory as a whole.
pub(crate) async fn each<K>(
    api: &Api<K>,
    params: ListParams,
    mut take: impl FnMut(K),
) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        page.items.into_iter().for_each(&mut take);
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        let Some(token) = next else {
            return Ok(());
        };
        params.continue_token = Some(token);
    }
}
