//! Location and network of relays from MaxMind files.

use serde_json::json;

use super::kit::Bench;
use super::mmdb;
use super::stub::Stub;

#[tokio::test]
async fn a_relay_has_a_place_and_a_network_when_the_user_has_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (city, asn) = (folder.path().join("city.mmdb"), folder.path().join("asn.mmdb"));
    let zurich = json!({
        "city": { "names": { "en": "Zurich" } }, "country": { "iso_code": "CH" },
        "location": { "latitude": 47.3769, "longitude": 8.5417, "time_zone": "Europe/Zurich" }
    });
    let owner = json!({ "autonomous_system_number": 64_500, "autonomous_system_organization": "Example" });
    std::fs::write(&city, mmdb::file("GeoLite2-City", &zurich)).unwrap();
    std::fs::write(&asn, mmdb::file("GeoLite2-ASN", &owner)).unwrap();

    let mut bench = Bench::new().await;
    bench.settings.geo_city_file = Some(city);
    bench.settings.geo_asn_file = Some(asn);
    let stub = Stub::honest().await;
    bench.add(&stub.url(), "operator").await;
    bench.round().await;
    let snapshot = bench.newest(&stub.url()).await;
    assert_eq!(
        snapshot.detail["geo"],
        json!({
            "country": "CH", "city": "Zurich", "latitude": 47.3769, "longitude": 8.5417,
            "time_zone": "Europe/Zurich", "geohash": "u0qjd"
        })
    );
    assert_eq!(snapshot.detail["net"], json!({ "asn": 64_500, "organization": "Example" }));
}

#[tokio::test]
async fn without_the_files_there_is_no_place_and_no_failure() {
    let mut bench = Bench::new().await;
    let stub = Stub::honest().await;
    bench.add(&stub.url(), "operator").await;
    bench.round().await;
    let snapshot = bench.newest(&stub.url()).await;
    assert!(
        !snapshot.detail.contains_key("geo") && !snapshot.detail.contains_key("failures"),
        "{snapshot:?}"
    );
}
