//! Every table is registered as a journal, projection or working table, and commented as such.

use quipu::store::registry::{self, TABLES, TableKind};

use crate::support::database::TestDatabase;

#[tokio::test]
async fn every_table_of_the_catalog_is_of_one_registered_kind() {
    let database = TestDatabase::new().await;
    let owner = database.owner().await;
    assert_eq!(registry::problems(&owner).await.unwrap(), Vec::<String>::new());
    let kinds = owner
        .query("SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')", &[])
        .await
        .unwrap();
    for (name, kind) in TABLES.iter().filter(|(_, kind)| *kind != TableKind::Schema) {
        let row = kinds.iter().find(|row| row.get::<_, &str>(0) == *name).unwrap();
        let comment: String = row.get(1);
        assert!(comment.starts_with(kind.as_str()), "{name}: {comment}");
    }
}
