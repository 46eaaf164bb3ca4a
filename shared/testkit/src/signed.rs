use std::sync::Arc;

use keyway_domain::OpenError;
use keyway_domain::keyring::{KeyringOnDemand, RootKeyring};
use keyway_domain::ports::{Clock, Random, SecretStore, TableReader, TableWriter};
use keyway_domain::records::SignedTable;

/// Makes a deployment. Returns its table, whose records are signed, and the keyring that signs them.
///
/// # Errors
/// When the table or the secret store fails.
pub async fn signed_table<T: TableWriter + 'static>(
    table: &Arc<T>,
    secrets: Arc<dyn SecretStore>,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(Arc<SignedTable<T>>, Arc<KeyringOnDemand>), OpenError> {
    let (keeper, of_keyring) = (secrets.as_ref(), Arc::clone(random));
    let keyring =
        RootKeyring::establish(table.as_ref(), keeper, clock.as_ref(), of_keyring).await?;
    let keyring = Arc::new(KeyringOnDemand::opened(
        keyring,
        Arc::clone(table) as Arc<dyn TableReader>,
        secrets,
        Arc::clone(clock),
        Arc::clone(random),
    ));
    let signed = SignedTable::new(Arc::clone(table), Arc::clone(&keyring));
    Ok((Arc::new(signed), keyring))
}
