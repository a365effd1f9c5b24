//! The one integration binary: one link, one process, every scenario a module.

// `cfg(test)` tells clippy that these are tests, helpers included.
#[cfg(test)]
mod activation;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod audit_attacks;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod audit_callbacks;
#[cfg(test)]
mod audit_crash;
#[cfg(test)]
mod audit_denied;
#[cfg(test)]
mod audit_disk;
#[cfg(test)]
mod audit_faults;
#[cfg(test)]
mod audit_files;
#[cfg(test)]
mod audit_reconcile;
#[cfg(test)]
mod audit_restore;
#[cfg(test)]
mod audit_signed;
#[cfg(test)]
mod audit_swap;
#[cfg(test)]
mod audit_verify;
#[cfg(test)]
mod bank_connections;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod bitrix;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod callback_backlog;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod callback_bytes;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod callback_crash;
#[cfg(test)]
mod callback_openssl;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod callback_transitions;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod callbacks;
#[cfg(test)]
mod callers;
#[cfg(test)]
mod callers_flood;
#[cfg(test)]
mod check;
#[cfg(test)]
mod config_golden;
#[cfg(test)]
mod confinement;
#[cfg(test)]
mod confinement_acts;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod demo;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod egress_contract;
#[cfg(test)]
mod hangup;
#[cfg(test)]
mod keyholder_hostile;
#[cfg(test)]
mod keyholder_life;
#[cfg(test)]
mod keyholder_memory;
#[cfg(test)]
mod keyholder_oracle;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod metrics;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod metrics_alarms;
#[cfg(test)]
mod metrics_documents;
#[cfg(test)]
mod once_answers;
#[cfg(test)]
mod once_config;
#[cfg(test)]
mod once_crash;
#[cfg(test)]
mod once_disk;
#[cfg(test)]
mod once_frozen;
#[cfg(test)]
mod once_guard;
#[cfg(test)]
mod once_order;
#[cfg(test)]
mod outcome_races;
#[cfg(test)]
mod outcome_table;
#[cfg(test)]
mod outcome_tls;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod php;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod reload_keys;
#[cfg(feature = "sandbox")]
#[cfg(test)]
mod required;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhook;
