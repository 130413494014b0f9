//! What tells a client what there is: reflection, and the list of methods.

use std::collections::HashSet;

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto};

use crate::{
    limits::MAX_SMALL_REQUEST,
    router::Builder,
    upstream::{Upstreams, reflection},
};

/// Protobuf packages of the contract that are not the guest's.
const NOT_HERE: &str = "vbridge.host.";

/// The descriptors of everything that is served, each file once.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(FileDescriptorSet);

/// A descriptor set that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// It is not an encoded `FileDescriptorSet`.
    #[error("a descriptor set is not an encoded google.protobuf.FileDescriptorSet: {0}")]
    Decode(#[from] prost::DecodeError),
    /// It is one, but its content is not complete.
    #[error("a descriptor set can't be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Descriptors {
    /// Those of the agent itself.
    pub(crate) fn built_in() -> Result<Self, DescriptorError> {
        let mut descriptors = Self::default();
        for set in [
            vbridge_api::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            descriptors.add(set)?;
        }
        descriptors
            .0
            .file
            .retain(|file| !file.package().starts_with(NOT_HERE));
        Ok(descriptors)
    }

    /// Adds the files of an encoded set that are not there yet.
    pub(crate) fn add(&mut self, set: &[u8]) -> Result<(), DescriptorError> {
        for file in FileDescriptorSet::decode(set)?.file {
            if !self.0.file.iter().any(|known| known.name() == file.name()) {
                self.0.file.push(file);
            }
        }
        Ok(())
    }

    /// Full names of all methods of `services` that are described, in order: `package.Service/Method`.
    pub(crate) fn methods<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let methods = services
            .into_iter()
            .flat_map(|service| self.methods_of(service));
        methods.map(|(name, _)| name).collect()
    }

    /// Paths of those that take one request and give one answer.
    pub(crate) fn unary<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> HashSet<String> {
        let methods = services
            .into_iter()
            .flat_map(|service| self.methods_of(service));
        methods
            .filter(|(_, method)| !method.client_streaming() && !method.server_streaming())
            .map(|(name, _)| format!("/{name}"))
            .collect()
    }

    fn methods_of(&self, service: &str) -> Vec<(String, &MethodDescriptorProto)> {
        let full_name = |file: &FileDescriptorProto, name: &str| match file.package() {
            "" => name.to_owned(),
            package => format!("{package}.{name}"),
        };
        self.0
            .file
            .iter()
            .flat_map(|file| {
                file.service
                    .iter()
                    .map(move |service| (full_name(file, service.name()), service))
            })
            .filter(|(name, _)| name == service)
            .flat_map(|(name, service)| {
                service
                    .method
                    .iter()
                    .map(move |method| (format!("{name}/{}", method.name()), method))
            })
            .collect()
    }

    /// Adds reflection, in both versions, to `services`: it lists them all, itself included, and describes those whose
    /// descriptors are known. What they have not, `upstreams` are asked for.
    pub(crate) fn serve(
        self,
        services: &mut Builder,
        upstreams: &Upstreams,
    ) -> Result<(), DescriptorError> {
        let mut names: Vec<_> = services.names().collect();
        names.extend(reflection_names());
        names.sort_unstable();
        let configure = |set: FileDescriptorSet| {
            let builder = tonic_reflection::server::Builder::configure()
                .include_reflection_service(false)
                .register_file_descriptor_set(set);
            names
                .iter()
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let v1 = configure(self.0.clone())
            .build_v1()?
            .max_decoding_message_size(MAX_SMALL_REQUEST);
        if !upstreams.is_empty() {
            let (v1, v1alpha) = reflection::merged(v1, upstreams.clone());
            services.add_limited(v1, MAX_SMALL_REQUEST);
            services.add_limited(v1alpha, MAX_SMALL_REQUEST);
            return Ok(());
        }
        let v1alpha = configure(self.0)
            .build_v1alpha()?
            .max_decoding_message_size(MAX_SMALL_REQUEST);
        services.add_limited(v1, MAX_SMALL_REQUEST);
        services.add_limited(v1alpha, MAX_SMALL_REQUEST);
        Ok(())
    }
}

/// The names of reflection itself.
pub(crate) fn reflection_names() -> [&'static str; 2] {
    [
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_listed_by_service() {
        let descriptors = Descriptors::built_in().unwrap();
        let methods = descriptors.methods([
            "vbridge.guest.v1.Metrics",
            "not.Described",
            "grpc.health.v1.Health",
        ]);
        assert!(methods.starts_with(&[
            "vbridge.guest.v1.Metrics/Get".to_owned(),
            "vbridge.guest.v1.Metrics/Watch".to_owned(),
        ]));
        assert!(methods.contains(&"grpc.health.v1.Health/Check".to_owned()));
        assert!(methods.iter().all(|method| !method.starts_with("not.")));
    }

    #[test]
    fn methods_without_streams_are_told_from_the_others() {
        let descriptors = Descriptors::built_in().unwrap();
        let unary = descriptors.unary(["vbridge.guest.v1.Metrics", "vbridge.guest.v1.Files"]);
        for (path, expected) in [
            ("/vbridge.guest.v1.Metrics/Get", true),
            ("/vbridge.guest.v1.Metrics/Watch", false),
            ("/vbridge.guest.v1.Files/Stat", true),
            ("/vbridge.guest.v1.Files/Write", false),
            ("/vbridge.guest.v1.System/Ping", false),
        ] {
            assert_eq!(unary.contains(path), expected, "{path}");
        }
    }

    #[test]
    fn the_hosts_part_of_the_contract_is_not_offered() {
        let descriptors = Descriptors::built_in().unwrap();
        assert!(descriptors.methods(["vbridge.host.v1.Bridge"]).is_empty());
    }

    #[test]
    fn what_is_no_descriptor_set_is_refused() {
        let error = Descriptors::default().add(b"\xff\xff\xff").unwrap_err();
        assert!(error.to_string().contains("FileDescriptorSet"), "{error}");
    }
}
