//! Passwords and keys that the daemon keeps for disks and servers.

use uuid::Uuid;

use crate::code::Code;
use crate::connect::Connect;
use crate::object::{calls, object};
use crate::raw::api::{ConnectListAllSecretsFlags, SecretDefineFlags, SecretUsageType};

object!(
    /// A password or key that the daemon keeps.
    Secret(NonnullSecret)
);

calls!(Connect {
    /// All secrets that the flags select; without flags: all.
    secrets(which: ConnectListAllSecretsFlags) -> Vec<Secret>
        = connect_list_all_secrets(ConnectListAllSecretsArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.secrets.into_iter().map(|raw| Secret::new(connect, raw)).collect();
    /// The secret of this UUID.
    secret_by_uuid(uuid: Uuid) -> Secret
        = secret_lookup_by_uuid(SecretLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| Secret::new(connect, found.secret);
    /// The secret for this use, such as a volume's path.
    secret_by_usage(kind: SecretUsageType, usage: &str) -> Secret
        = secret_lookup_by_usage(SecretLookupByUsageArgs { usage_type: kind.as_raw(), usage_id: usage.to_owned() })
        |found, connect| Secret::new(connect, found.secret);
    /// Defines a secret, or changes one; its value is set apart.
    define_secret(xml: &str, flags: SecretDefineFlags) -> Secret
        = secret_define_xml(SecretDefineXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| Secret::new(connect, defined.secret);
});

impl Secret {
    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }

    /// What kind of use it is for.
    pub fn usage_kind(&self) -> Code<SecretUsageType> {
        Code::new(self.raw.usage_type)
    }

    /// What it is for, such as a volume's path.
    pub fn usage(&self) -> &str {
        &self.raw.usage_id
    }
}

calls!(Secret [secret] {
    /// Its definition, without its value.
    xml() -> String = secret_get_xml_desc(SecretGetXmlDescArgs { flags: 0 }) |found| found.xml;
    /// Its value, unless it is private.
    value() -> Vec<u8> = secret_get_value(SecretGetValueArgs { flags: 0 }) |found| found.value;
    /// Sets its value.
    set_value(value: &[u8]) = secret_set_value(SecretSetValueArgs { value: value.to_vec(), flags: 0 });
    /// Forgets it and its value.
    undefine() = secret_undefine(SecretUndefineArgs {});
});
