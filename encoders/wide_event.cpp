// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>

#include <spillway/buffers/bucket.hpp>
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/wide_event.hpp>

namespace spillway::detail {
namespace {

constexpr std::array<std::string_view, 5> identity_keys{"tenant", "user", "request_id", "trace_id",
                                                        "span_id"};

bool has(const SiteInfo& site, std::string_view key) {
  return std::any_of(site.fields.begin(), site.fields.end(), [&](const SiteField& field) {
    return field.role != FieldRole::property && field.key == key;
  });
}

void append_list(const std::vector<std::string>& items, std::string& out) {
  char separator = '[';
  for (const std::string& item : items) {
    out += separator;
    out += item;
    separator = ',';
  }
  out += items.empty() ? "[]" : "]";
}

std::string metric_of(const SiteField& field) {
  std::string metric = "{\"Name\":" + json_of(field.key) + ",\"Unit\":\"";
  metric.append(to_string(field.unit));
  return metric + (field.high_resolution ? "\",\"StorageResolution\":1}" : "\"}");
}

}  // namespace

WideEventEncoder::WideEventEncoder(const EmfOptions& options, Dimensions dimensions, SetsOf sets_of)
    : namespace_(options.metric_namespace),
      log_group_(options.log_group),
      log_stream_(options.log_stream),
      bytes_max_(options.document_bytes_max),
      dimensions_(std::move(dimensions)),
      sets_of_(std::move(sets_of)) {}

const WideEventEncoder::Template& WideEventEncoder::template_of(const SiteInfo& site) {
  const auto at = std::lower_bound(
      templates_.begin(), templates_.end(), &site,
      [](const auto& entry, const SiteInfo* wanted) { return std::less<>{}(entry.first, wanted); });
  if (at != templates_.end() && at->first == &site) return *at->second;
  return *templates_.emplace(at, &site, std::make_unique<Template>(make_template(site)))->second;
}

// Metrics that are reported for the same sets share a directive.
std::string WideEventEncoder::directives_of(const SiteInfo& site,
                                            const std::vector<std::string>& names) const {
  struct Directive {
    DimensionSets sets;
    std::vector<std::string> metrics;
  };
  std::vector<Directive> directives;
  for (const SiteField& field : site.fields) {
    if (field.role != FieldRole::metric) continue;
    DimensionSets sets = sets_of_(field.key, names);
    const auto same = std::find_if(directives.begin(), directives.end(),
                                   [&](const Directive& one) { return one.sets == sets; });
    if (same == directives.end()) {
      directives.push_back({std::move(sets), {metric_of(field)}});
    } else {
      same->metrics.push_back(metric_of(field));
    }
  }
  std::vector<std::string> texts;
  for (const Directive& directive : directives) {
    std::string& text =
        texts.emplace_back("{\"Namespace\":" + json_of(namespace_) + ",\"Dimensions\":");
    std::vector<std::string> sets;
    for (const auto& set : directive.sets) {
      std::vector<std::string> quoted;
      for (const std::string& name : set) quoted.push_back(json_of(name));
      append_list(quoted, sets.emplace_back());
    }
    append_list(sets, text);
    text += ",\"Metrics\":";
    append_list(directive.metrics, text);
    text += '}';
  }
  std::string all;
  append_list(texts, all);
  return all;
}

WideEventEncoder::Template WideEventEncoder::make_template(const SiteInfo& site) const {
  Template made;
  std::vector<std::string_view> own_keys{"_aws", "truncated"};
  own_keys.insert(own_keys.end(), identity_keys.begin(), identity_keys.end());
  Dimensions all;  // With no values yet, but for the configured ones.
  for (const Dimension& dimension : dimensions_) {
    if (has(site, dimension.name)) continue;
    own_keys.push_back(dimension.name);
    all.push_back(dimension);
  }
  std::vector<std::string_view> taken;
  for (const SiteField& field : site.fields) {
    if (field.role == FieldRole::property) continue;
    const bool is_metric = field.role == FieldRole::metric;
    made.metrics += is_metric ? 1U : 0U;
    if (field.key == "_aws" || field.key == "truncated" ||
        std::find(taken.begin(), taken.end(), field.key) != taken.end()) {
      made.error = "'" + field.key + "' is the name of another part, or one of ours";
    }
    taken.push_back(field.key);
    if (!is_metric) all.push_back({field.key, "-"});
    if (const auto error = is_metric ? limits::metric_name_error(field.key) : std::nullopt) {
      made.error = *error;
    }
  }
  if (const auto error = limits::dimensions_error(all)) made.error = *error;
  std::vector<std::string> names;
  for (const Dimension& dimension : all) names.push_back(dimension.name);
  std::sort(names.begin(), names.end());
  made.directives = ",\"CloudWatchMetrics\":" + directives_of(site, names) + "}";
  for (const Dimension& dimension : dimensions_) {
    if (has(site, dimension.name)) continue;
    made.directives.append(",").append(json_of(dimension.name)).append(":");
    made.directives.append(json_of(dimension.value));
  }
  for (std::size_t i = 0; i < identity_keys.size(); ++i) {
    made.has_own[i] =
        has(site, identity_keys[i]) ||
        std::any_of(dimensions_.begin(), dimensions_.end(),
                    [&](const Dimension& dimension) { return dimension.name == identity_keys[i]; });
  }
  made.fields = layout_of(site.fields, own_keys);
  return made;
}

bool WideEventEncoder::check(LogView& event, std::uint64_t& invalid) {
  ValueReader values(event.values);
  const std::vector<SiteField>& fields = event.site->fields;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (fields[i].role == FieldRole::metric) {
      const std::size_t at = event.values.size() - values.rest().size();
      const auto value = std::bit_cast<double>(values.number());
      if (!is_valid_measurement(value)) {
        invalid |= std::uint64_t{1} << i;
      } else if (const double kept = without_tiny(value); kept != value) {
        if (event.values.data() != values_.data()) {
          values_.assign(event.values.begin(), event.values.end());
          event.values = values_;
        }
        std::memcpy(values_.data() + at, &kept, sizeof kept);
      }
    } else if (fields[i].role == FieldRole::dimension) {
      if (const auto error = limits::dimension_value_error(fields[i].key, values.string())) {
        error_ = *error;
        return false;
      }
    } else {
      skip_value(values, fields[i].type);
    }
  }
  return true;
}

std::uint64_t WideEventEncoder::append(const LogView& event, ByteBuffer& out) {
  const Template& fixed = template_of(*event.site);
  if (!fixed.error.empty()) {
    error_ = fixed.error;
    return 0;
  }
  std::uint64_t invalid = 0;
  LogView view = event;
  if (!check(view, invalid)) return 0;
  if (invalid == 0) return append(view, fixed, out);
  // What is no measurement is a property, so that the document says what it was.
  SiteInfo site = *event.site;
  for (std::size_t i = 0; i < site.fields.size(); ++i) {
    if ((invalid >> i & 1U) != 0) site.fields[i].role = FieldRole::property;
  }
  const Template once = make_template(site);
  if (once.metrics == 0) {
    error_ = "no value of a metric is a number that can be sent";
    return 0;
  }
  view.site = &site;
  return append(view, once, out);
}

std::uint64_t WideEventEncoder::append(const LogView& event, const Template& fixed,
                                       ByteBuffer& out) {
  ContextTexts context = *event.context;
  if (fixed.has_own[0]) context.tenant = {};
  if (fixed.has_own[1]) context.user = {};
  if (fixed.has_own[2]) context.request_id = {};
  if (fixed.has_own[3]) context.trace_id = {};
  const auto append_document = [&](std::size_t longest) {
    out.append("{\"_aws\":{\"Timestamp\":");
    append_number(out, event.time_ns / 1'000'000);
    const auto append_text = [&](std::string_view key, std::string_view value) {
      if (value.empty()) return;
      out.append(key);
      append_json_string(out, value);
    };
    append_text(",\"LogGroupName\":", log_group_);
    append_text(",\"LogStreamName\":", log_stream_);
    out.append(fixed.directives);
    char* to = write_identity(out.reserve(identity_bytes_max(context) + span_id_bytes), context);
    if (event.span_id != 0 && !fixed.has_own[4]) to = write_span_id(to, event.span_id);
    out.advance_to(to);
    // A dimension is never cut: it has at most 1024 characters, and would be another one.
    append_fields(fixed.fields, event.site->fields, event.values,
                  std::max(longest, limits::dimension_value_chars_max), readers_, out);
    out.append(fixed.fields.tail);
  };
  append_cut(append_document, "}", ",\"truncated\":true}", bytes_max_, out);
  return fixed.metrics;
}

}  // namespace spillway::detail
