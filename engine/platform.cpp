// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/engine/platform.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::detail {
namespace {

enum class Platform : std::uint8_t { unknown, lambda, beanstalk, eks, ecs, ec2, app_runner };

std::string_view variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

class Source {
 public:
  explicit Source(const Dimensions& attributes) : attributes_(attributes) {}
  std::string_view attribute(std::string_view name) const {
    const auto found = std::find_if(attributes_.begin(), attributes_.end(),
                                    [&](const Dimension& one) { return one.name == name; });
    return found == attributes_.end() ? std::string_view() : std::string_view(found->value);
  }
  std::string_view attribute_or(std::string_view name, std::string_view otherwise) const {
    const std::string_view value = attribute(name);
    return value.empty() ? otherwise : value;
  }

 private:
  const Dimensions& attributes_;
};

Platform platform_of(const Source& source) {
  constexpr std::array<std::pair<std::string_view, Platform>, 6> platforms{
      {{"aws_lambda", Platform::lambda},
       {"aws_elastic_beanstalk", Platform::beanstalk},
       {"aws_eks", Platform::eks},
       {"aws_ecs", Platform::ecs},
       {"aws_ec2", Platform::ec2},
       {"aws_app_runner", Platform::app_runner}}};
  const std::string_view name = source.attribute("cloud.platform");
  for (const auto& [attribute, platform] : platforms) {
    if (attribute == name) return platform;
  }
  if (!variable("AWS_LAMBDA_FUNCTION_NAME").empty()) return Platform::lambda;
  // Kubernetes says its own of any cluster; a role for the pod is what EKS adds.
  if (!variable("KUBERNETES_SERVICE_HOST").empty() &&
      (!variable("AWS_WEB_IDENTITY_TOKEN_FILE").empty() ||
       !variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").empty())) {
    return Platform::eks;
  }
  if (!variable("ECS_CONTAINER_METADATA_URI_V4").empty() ||
      !variable("ECS_CONTAINER_METADATA_URI").empty()) {
    return Platform::ecs;
  }
  return Platform::unknown;
}

// "fargate", "ec2" or nothing.
std::string ecs_launch_type(const Source& source) {
  const std::string type = transport::lower(source.attribute("aws.ecs.launchtype"));
  if (!type.empty()) return type;
  const std::string_view environment = variable("AWS_EXECUTION_ENV");
  if (environment == "AWS_ECS_FARGATE") return "fargate";
  return environment == "AWS_ECS_EC2" ? "ec2" : "";
}

std::string json_string(std::string_view text) {
  ByteBuffer out;
  append_json_string(out, cut_utf8(text, limits::segment_string_chars_max));
  return std::string(out.view());
}

using Members = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// An object of those members that have a value; no block when none has.
void add_block(XrayResource& resource, std::string_view name, Members members) {
  std::string json;
  for (const auto& [key, value] : members) {
    if (value.empty()) continue;
    json.append(json.empty() ? "{" : ",").append(json_string(key)).append(":");
    json.append(json_string(value));
  }
  if (!json.empty()) resource.blocks.push_back({std::string(name), json + "}"});
}

}  // namespace

XrayResource xray_resource(const Config& config) {
  const Source source(config.resource_attributes.get());
  const Platform platform = platform_of(source);
  const std::string launch_type = ecs_launch_type(source);
  XrayResource resource;
  if (const std::string_view account = source.attribute("cloud.account.id"); !account.empty()) {
    resource.blocks.push_back({"account_id", json_string(account)});
  }
  std::string_view group = config.logs == LogsTo::put_log_events
                               ? std::string_view(config.log_group.get())
                               : source.attribute("aws.log.group.names");
  if (group.empty()) group = variable("AWS_LAMBDA_LOG_GROUP_NAME");
  if (!group.empty()) {
    resource.blocks.push_back({"cloudwatch_logs", "[{\"log_group\":" + json_string(group) + "}]"});
  }
  const std::string_view zone = source.attribute("cloud.availability_zone");
  switch (platform) {
    case Platform::unknown:
      return resource;
    case Platform::lambda:
      resource.origin = "AWS::Lambda::Function";
      return resource;
    case Platform::app_runner:
      resource.origin = "AWS::AppRunner::Service";
      return resource;
    case Platform::beanstalk: {
      resource.origin = "AWS::ElasticBeanstalk::Environment";
      add_block(resource, "elastic_beanstalk",
                {{"environment_name", source.attribute("service.namespace")},
                 {"version_label", source.attribute("service.version")}});
      return resource;
    }
    case Platform::eks:
      resource.origin = "AWS::EKS::Container";
      add_block(resource, "eks",
                {{"cluster_name", source.attribute("k8s.cluster.name")},
                 {"pod", source.attribute_or("k8s.pod.name", variable("HOSTNAME"))},
                 {"container_id", source.attribute("container.id")}});
      break;
    case Platform::ecs:
      resource.origin = launch_type == "fargate" ? "AWS::ECS::Fargate"
                        : launch_type == "ec2"   ? "AWS::ECS::EC2"
                                                 : "AWS::ECS::Container";
      add_block(resource, "ecs",
                {{"container", source.attribute_or("container.name", variable("HOSTNAME"))},
                 {"container_id", source.attribute("container.id")},
                 {"container_arn", source.attribute("aws.ecs.container.arn")},
                 {"task_arn", source.attribute("aws.ecs.task.arn")},
                 {"task_family", source.attribute("aws.ecs.task.family")},
                 {"cluster_arn", source.attribute("aws.ecs.cluster.arn")},
                 {"availability_zone", zone},
                 {"launch_type", launch_type}});
      break;
    case Platform::ec2:
      resource.origin = "AWS::EC2::Instance";
      break;
  }
  // A container's machine may be known too.
  if (!source.attribute("host.id").empty()) {
    add_block(resource, "ec2",
              {{"instance_id", source.attribute("host.id")},
               {"instance_size", source.attribute("host.type")},
               {"ami_id", source.attribute("host.image.id")},
               {"availability_zone", zone}});
  }
  return resource;
}

}  // namespace spillway::detail
