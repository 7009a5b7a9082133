//! Where a bucket is: region, host, and whether its name is a part of the host's or of the path.
//!
//! In: what the user gave. Out: values for the crate, which would build AWS's usual addresses alone. No I/O.

use std::net::IpAddr;

use reqwest::Url;

use super::super::cloud::aws_domain;
use super::super::error::RegistryError;
use super::super::transport::authority;
use crate::vocab::{BucketPlace, shown_url};

/// What stores that are not AWS's mostly call their only region.
const USUAL_REGION: &str = "us-east-1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) region: String,
    /// With the bucket in its host, unless that goes into the path.
    pub(super) endpoint: String,
    pub(super) is_path_style: bool,
    /// In messages.
    pub(super) host: String,
}

impl Address {
    /// `configured` is the region that AWS's own settings name.
    pub(super) fn of(
        place: &BucketPlace,
        configured: Option<String>,
    ) -> Result<Address, RegistryError> {
        let region = place.region.clone().or(configured);
        let (region, endpoint) = match (&place.endpoint, region) {
            (Some(endpoint), region) => {
                let region = region.unwrap_or_else(|| USUAL_REGION.to_owned());
                (region, endpoint.clone())
            }
            (None, Some(region)) => {
                let endpoint = format!("https://s3.{region}.{}", aws_domain(&region));
                (region, endpoint)
            }
            (None, None) => {
                return Err(RegistryError::Option {
                    what: format!(
                        "the region of the bucket `{}` is not known: region=… or AWS_REGION says it",
                        place.bucket
                    ),
                });
            }
        };
        let wrong = || RegistryError::Option {
            what: format!("`{}` is no URL of an object store", shown_url(&endpoint)),
        };
        let mut url = Url::parse(&endpoint).map_err(|_| wrong())?;
        let host = url.host_str().map(str::to_owned).ok_or_else(wrong)?;
        let is_path_style = place.path_style.unwrap_or_else(|| {
            // An address has no names below it, and a certificate for all names below a host is for one more part alone.
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
                || place.bucket.contains('.')
        });
        if !is_path_style {
            let host = format!("{}.{host}", place.bucket);
            url.set_host(Some(&host)).map_err(|_| wrong())?;
        }
        Ok(Address {
            region,
            host: authority(&url),
            endpoint: url.as_str().trim_end_matches('/').to_owned(),
            is_path_style,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str) -> BucketPlace {
        BucketPlace {
            bucket: bucket.to_owned(),
            region: None,
            endpoint: None,
            path_style: None,
            keys: None,
            prefix: String::new(),
            blobs: String::new(),
            documents: String::new(),
            layers_at_once: 1,
        }
    }

    #[test]
    fn buckets_have_their_hosts() {
        let check = |bucket: &str,
                     region: Option<&str>,
                     endpoint: Option<&str>,
                     path_style: Option<bool>,
                     expected: &str| {
            let place = BucketPlace {
                region: region.map(str::to_owned),
                endpoint: endpoint.map(str::to_owned),
                path_style,
                ..place(bucket)
            };
            let address = Address::of(&place, None).unwrap();
            let style = match address.is_path_style {
                true => "path",
                false => "host",
            };
            let found = format!("{} {style} {}", address.endpoint, address.region);
            assert_eq!(found, expected);
        };
        let region = Some("eu-west-1");
        check(
            "b",
            region,
            None,
            None,
            "https://b.s3.eu-west-1.amazonaws.com host eu-west-1",
        );
        check(
            "b",
            region,
            None,
            Some(true),
            "https://s3.eu-west-1.amazonaws.com path eu-west-1",
        );
        check(
            "b.c",
            region,
            None,
            None,
            "https://s3.eu-west-1.amazonaws.com path eu-west-1",
        );
        check(
            "b",
            Some("cn-north-1"),
            None,
            None,
            "https://b.s3.cn-north-1.amazonaws.com.cn host cn-north-1",
        );
        let minio = Some("https://minio.corp:9000/");
        check(
            "b",
            None,
            minio,
            None,
            "https://b.minio.corp:9000 host us-east-1",
        );
        check(
            "b",
            Some("auto"),
            minio,
            Some(true),
            "https://minio.corp:9000 path auto",
        );
        check(
            "b",
            None,
            Some("http://[::1]:9000/s3/"),
            None,
            "http://[::1]:9000/s3 path us-east-1",
        );
        check(
            "b",
            None,
            Some("http://10.0.0.1"),
            None,
            "http://10.0.0.1 path us-east-1",
        );
        check(
            "b",
            None,
            Some("http://localhost:1"),
            None,
            "http://localhost:1 path us-east-1",
        );
        check(
            "b",
            None,
            Some("http://localhost:1"),
            Some(false),
            "http://b.localhost:1 host us-east-1",
        );
    }

    #[test]
    fn a_region_is_needed_where_it_makes_the_host() {
        let error = Address::of(&place("b"), None).unwrap_err().to_string();
        assert!(error.contains("AWS_REGION"), "{error}");
        let address = Address::of(&place("b"), Some("eu-west-3".to_owned())).unwrap();
        assert_eq!(address.host, "b.s3.eu-west-3.amazonaws.com");
        let wrong = BucketPlace {
            endpoint: Some("http://[".to_owned()),
            ..place("b")
        };
        assert!(Address::of(&wrong, None).is_err());
    }
}
