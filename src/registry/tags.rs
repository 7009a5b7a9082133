//! Lists of the API that come in pages: a repository's tags, and whatever else is linked so.
//!
//! A list that leads back to itself or does not end is refused; a page that breaks on the way is asked for again.

use reqwest::{Method, Url};
use serde::Deserialize;

use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::exchange::{Ask, Exchange, Target, Trail};
use crate::vocab::ImageRef;

const MOST_PAGES: usize = 10_000;
const MOST_PAGE: u64 = 8 * 1024 * 1024;

/// One page of a list.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Whether the next page is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Wanted,
    Enough,
}

impl Exchange {
    /// Lists a repository's tags. The registry knows best; its mirrors may know some of them.
    pub(super) async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let mut trail = Trail::default();
        for endpoint in self.sources(image).into_iter().rev() {
            match self.tags_at(&endpoint).await {
                Ok(tags) => return Ok(tags),
                Err(error) => {
                    let is_final = !endpoint.is_mirror && !error.blames_host();
                    trail.add(&endpoint, error);
                    if is_final {
                        break;
                    }
                }
            }
        }
        Err(trail.into_error())
    }

    /// Lists all tags at one place.
    pub(super) async fn tags_at(&self, endpoint: &Endpoint) -> Result<Vec<String>, RegistryError> {
        let mut tags = Vec::new();
        let ask = Ask::read(Method::GET, endpoint, "tags/list?n=1000", &endpoint.name());
        self.pages(endpoint, ask, &[], &mut |page| {
            tags.extend(tags_of(endpoint, &page)?);
            Ok(More::Wanted)
        })
        .await?;
        Ok(tags)
    }

    /// Lists the tags that begin with `prefix`, from there on and no further than the registry's order shows. A registry that keeps
    /// no order may begin anywhere: whoever knows a tag that must be there finds out.
    pub(super) async fn tags_in_order(
        &self,
        endpoint: &Endpoint,
        prefix: &str,
    ) -> Result<Vec<String>, RegistryError> {
        let mut found = Vec::new();
        let mut is_sorted = true;
        let mut furthest = String::new();
        let rest = format!("tags/list?n=1000&last={prefix}");
        let ask = Ask::read(Method::GET, endpoint, &rest, &endpoint.name());
        self.pages(endpoint, ask, &[], &mut |page| {
            let tags = tags_of(endpoint, &page)?;
            is_sorted &= tags.is_sorted() && tags.first().is_none_or(|first| *first >= furthest);
            if let Some(last) = tags.last() {
                furthest.clone_from(last);
            }
            let is_past = is_sorted && furthest.as_str() > prefix && !furthest.starts_with(prefix);
            found.extend(tags.into_iter().filter(|tag| tag.starts_with(prefix)));
            Ok(if is_past { More::Enough } else { More::Wanted })
        })
        .await?;
        Ok(found)
    }

    /// Reads a list page by page until there is no other one, or `take` has enough. `accepted` are statuses that end it as well.
    pub(super) async fn pages(
        &self,
        endpoint: &Endpoint,
        mut ask: Ask,
        accepted: &[u16],
        take: &mut dyn FnMut(Page) -> Result<More, RegistryError>,
    ) -> Result<(), RegistryError> {
        for _ in 0..MOST_PAGES {
            let (page, next) = self.page(endpoint, &ask, accepted).await?;
            match (take(page)?, next) {
                (More::Enough, _) | (_, None) => return Ok(()),
                (More::Wanted, Some(next)) => ask.target = Target::Url(next),
            }
        }
        Err(broken(endpoint, "its list does not end"))
    }

    async fn page(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        accepted: &[u16],
    ) -> Result<(Page, Option<Url>), RegistryError> {
        let mut tries = self.tries(endpoint);
        loop {
            match self.page_once(endpoint, ask, accepted).await {
                Ok(page) => return Ok(page),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn page_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        accepted: &[u16],
    ) -> Result<(Page, Option<Url>), RegistryError> {
        let answer = self.ask_once(endpoint, ask, accepted).await?;
        let asked = answer.response.url().clone();
        let next = match answer.header("link").and_then(next_link) {
            Some(link) => Some(endpoint.host.location(&asked, link)?),
            None => None,
        };
        if next.as_ref() == Some(&asked) {
            return Err(broken(endpoint, "its list leads back to itself"));
        }
        let mut page = Page {
            status: answer.status().as_u16(),
            content_type: answer.header("content-type").map(str::to_owned),
            body: Vec::new(),
        };
        page.body = self.transport().read(answer, &ask.what, MOST_PAGE).await?;
        Ok((page, next))
    }
}

fn tags_of(endpoint: &Endpoint, page: &Page) -> Result<Vec<String>, RegistryError> {
    #[derive(Deserialize)]
    struct Tags {
        tags: Option<Vec<String>>,
    }
    let tags: Tags = serde_json::from_slice(&page.body)
        .map_err(|_| broken(endpoint, "its list of tags is not the JSON that was wanted"))?;
    Ok(tags.tags.unwrap_or_default())
}

fn broken(endpoint: &Endpoint, what: &str) -> RegistryError {
    RegistryError::Protocol {
        host: endpoint.host.registry().to_owned(),
        what: what.to_owned(),
    }
}

/// Finds the next page in a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let parameter: String = parameter
                .chars()
                .filter(|c| !c.is_whitespace() && *c != '"')
                .collect();
            parameter.eq_ignore_ascii_case("rel=next")
        });
        is_next.then_some(url)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let check = |header: &str, next: Option<&str>| assert_eq!(next_link(header), next);
        check(
            r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
            Some("/v2/a/tags/list?last=b&n=2"),
        );
        check(r#"<x>; rel="prev", <y>;rel=next"#, Some("y"));
        check("<x>; rel=\"prev\"", None);
        check("<x", None);
        check("", None);
    }
}
