//! Changing a store's tables behind its back.

use super::Home;
use apcm_format::StoreHeader;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

pub const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub const SLOTS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("slots");
pub const COUNTERS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("counters");
pub const KEYS: TableDefinition<'static, &[u8], u32> = TableDefinition::new("keys");
pub const METADATA: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("metadata");
pub const RESIDUALS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("residuals");
pub const CODEC: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("codec");

/// Changes the tables behind the store's back.
pub fn tamper(home: &Home, change: impl FnOnce(&WriteTransaction, &StoreHeader)) {
    let database = redb::Database::open(&home.path).unwrap();
    let header = {
        let transaction = database.begin_read().unwrap();
        let meta = transaction.open_table(META).unwrap();
        let value = meta.get("header").unwrap().unwrap();
        StoreHeader::decode(value.value()).unwrap()
    };
    let transaction = database.begin_write().unwrap();
    change(&transaction, &header);
    transaction.commit().unwrap();
}

pub fn flip(transaction: &WriteTransaction, table: TableDefinition<'static, u32, &[u8]>, key: u32) {
    let mut table = transaction.open_table(table).unwrap();
    let mut bytes = table.get(key).unwrap().unwrap().value().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    table.insert(key, bytes.as_slice()).unwrap();
}
