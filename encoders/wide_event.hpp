// SPDX-License-Identifier: Apache-2.0
//
// Wide events as EMF documents, one each (CloudWatch user guide, "Specification: Embedded metric
// format", read 2026-08).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/buffers/series.hpp>
#include <spillway/encoders/emf.hpp>
#include <spillway/encoders/fields.hpp>

namespace spillway::detail {

/// Keeps, per call site, the parts of the document that never change. One thread.
class WideEventEncoder {
 public:
  /// The dimension sets that a metric is reported for, of the dimensions `names`, which are sorted.
  using SetsOf = std::function<DimensionSets(const std::string& metric,
                                             const std::vector<std::string>& names)>;

  /// `dimensions`: of every event.
  WideEventEncoder(const EmfOptions& options, Dimensions dimensions, SetsOf sets_of);

  /// Appends one JSON object, without a line break. Longer than the options' largest document, its
  /// longest properties are cut and "truncated":true is added. Returns how many of the event's metrics
  /// are in it; 0: nothing was appended, see error().
  std::uint64_t append(const LogView& event, ByteBuffer& out);
  const std::string& error() const noexcept { return error_; }

  /// What was kept is not so any more: the sets have changed.
  void forget() noexcept { templates_.clear(); }

 private:
  static constexpr std::size_t identity_count = 5;  // tenant, user, request_id, trace_id, span_id
  struct Template {
    std::string directives;  ///< ,"CloudWatchMetrics":[...]},"Service":"orders"
    FieldLayout fields;
    std::array<bool, identity_count> has_own{};  ///< the event's own, in place of the context's
    std::uint64_t metrics = 0;
    std::string error;  ///< CloudWatch would take no event of this site
  };
  const Template& template_of(const SiteInfo& site);
  Template make_template(const SiteInfo& site) const;
  std::string directives_of(const SiteInfo& site, const std::vector<std::string>& names) const;
  /// Whether the values may be sent; of metrics that may not a bit each in `invalid`. Those too small
  /// for CloudWatch become zero, as where they are aggregated: then the event's values are a copy.
  bool check(LogView& event, std::uint64_t& invalid);
  std::uint64_t append(const LogView& event, const Template& fixed, ByteBuffer& out);

  const std::string namespace_;
  const std::string log_group_;
  const std::string log_stream_;
  const std::size_t bytes_max_;
  const Dimensions dimensions_;
  const SetsOf sets_of_;
  std::vector<std::pair<const SiteInfo*, std::unique_ptr<Template>>> templates_;  // by address
  std::vector<ValueReader> readers_;
  std::vector<std::byte> values_;  // of an event with such a value
  std::string error_;
};

}  // namespace spillway::detail
