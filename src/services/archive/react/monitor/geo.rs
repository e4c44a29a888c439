//! Looks up location and autonomous system of an address in the MaxMind files that the user supplies.

use std::net::IpAddr;
use std::path::Path;

use maxminddb::{Reader, geoip2};
use serde_json::{Map, Value, json};

use super::MonitorError;
use crate::config;

/// Characters of a geohash: about five kilometres, which is the accuracy of these files.
const GEOHASH_CHARS: usize = 5;

/// The files, read into memory once.
#[derive(Debug)]
pub(super) struct GeoFiles {
    city: Option<Reader<Vec<u8>>>,
    asn: Option<Reader<Vec<u8>>>,
}

fn open(path: Option<&Path>) -> Result<Option<Reader<Vec<u8>>>, MonitorError> {
    let Some(path) = path else { return Ok(None) };
    let unreadable = |e: maxminddb::MaxMindDbError| MonitorError::GeoFile(path.to_owned(), e.to_string());
    Reader::open_readfile(path).map(Some).map_err(unreadable)
}

impl GeoFiles {
    /// Opens the files named by the settings.
    pub(super) fn open(settings: &config::Monitor) -> Result<Self, MonitorError> {
        Ok(Self {
            city: open(settings.geo_city_file.as_deref())?,
            asn: open(settings.geo_asn_file.as_deref())?,
        })
    }

    /// Country, city, coordinates and geohash, as far as the file has them.
    pub(super) fn geo(&self, ip: IpAddr) -> Option<Value> {
        let city: geoip2::City = self.city.as_ref()?.lookup(ip).ok()?.decode().ok()??;
        let (latitude, longitude) = (city.location.latitude, city.location.longitude);
        let geohash = latitude.zip(longitude).and_then(|(y, x)| {
            let whole = x.is_finite() && y.is_finite();
            whole.then(|| geohash::encode(geohash::Coord { x, y }, GEOHASH_CHARS).ok())?
        });
        filled(&json!({
            "country": city.country.iso_code,
            "region": city.subdivisions.first().and_then(|region| region.iso_code),
            "city": city.city.names.english,
            "latitude": latitude,
            "longitude": longitude,
            "time_zone": city.location.time_zone,
            "geohash": geohash,
        }))
    }

    /// Number and owner of the autonomous system.
    pub(super) fn net(&self, ip: IpAddr) -> Option<Value> {
        let asn: geoip2::Asn = self.asn.as_ref()?.lookup(ip).ok()?.decode().ok()??;
        filled(
            &json!({ "asn": asn.autonomous_system_number, "organization": asn.autonomous_system_organization }),
        )
    }
}

/// The members that are neither null nor an empty list; `None` when there are none.
pub(super) fn filled(found: &Value) -> Option<Value> {
    let is_filled =
        |value: &Value| !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty());
    let members: Map<String, Value> = found
        .as_object()?
        .iter()
        .filter(|(_, value)| is_filled(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    (!members.is_empty()).then_some(Value::Object(members))
}
