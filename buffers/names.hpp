// SPDX-License-Identifier: Apache-2.0
//
// Names that records carry as numbers: span names, annotation keys, field keys; and the call sites
// of logs. One table for the process, because call sites and literals belong to the program and not
// to an engine. Nothing is ever removed, and entries never move, so the flusher reads without a
// lock. Texts are copied: a library may be unloaded again.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/record.hpp>
#include <spillway/buffers/severity.hpp>
#include <spillway/buffers/unit.hpp>

namespace spillway {

/// One `SPILLWAY_LOG` in the program: a static object that the macro makes. Users never write one.
struct LogSite {
  Severity severity;
  const char* message;
  const char* file;
  std::uint32_t line;
  /// What its records begin with but their size: its number in the table and their kind. From the
  /// first record on.
  std::atomic<std::uint64_t> record_head{0};
  /// The fields that the number stands for, by fold_field(); none are like this until there is one.
  std::atomic<std::uint64_t> fields{~std::uint64_t{0}};
};

}  // namespace spillway

namespace spillway::detail {

/// What a field is in a wide event (engine/wide_event.hpp); those of a log are properties.
enum class FieldRole : std::uint8_t { property, dimension, metric };

struct SiteField {
  std::string key;
  ValueType type;
  FieldRole role = FieldRole::property;
  Unit unit = Unit::none;        ///< of a metric
  bool high_resolution = false;  ///< of a metric
};

/// What the encoder needs of a call site, made once at its first record.
struct SiteInfo {
  Severity severity;
  std::string message;
  std::string file;
  std::uint32_t line;
  std::vector<SiteField> fields;
  std::string logger{};  ///< empty: of no named logger
};

/// How many measurements a record of a site is: 0 of a log.
inline std::uint64_t measurements_of(const SiteInfo& site) noexcept {
  std::uint64_t count = 0;
  for (const SiteField& field : site.fields) count += field.role == FieldRole::metric ? 1U : 0U;
  return count;
}

/// A key as it stands at a call site.
struct SiteKey {
  std::string_view key;
  ValueType type;
  FieldRole role = FieldRole::property;
  Unit unit = Unit::none;
  bool high_resolution = false;
};

/// Returns the number of a name, registering it when it is new. Takes a lock; any thread; allocates for
/// a new name. Names past the first 2^20, or without memory for them, share the number 0, "(too many
/// names)": a program that makes names from data has a bug.
std::uint32_t intern_name(std::string_view name) noexcept;

/// The text of a number from intern_name(). Any thread, no lock.
std::string_view name_of(std::uint32_t id) noexcept;

/// Returns the number of a call site for these fields, which fold to `fields`, registering it when new.
/// The first one is stored in the site itself, where the next record finds it without a call. Any
/// thread; takes a lock; allocates.
std::uint32_t register_site(LogSite& site, std::span<const SiteKey> keys,
                            std::uint64_t fields) noexcept;

/// Gives a number to what no call site in the program is as it stands: one whose records came through
/// a logger with fields of its own. 0: there is no room. Whoever makes them keeps them few.
std::uint32_t add_site(SiteInfo&& info) noexcept;

/// The first word of a log record as LogSite keeps it: the size is missing.
constexpr std::uint64_t log_record_head(std::uint32_t site) noexcept {
  return std::uint64_t{site} << 32 | RecordHeader::pack(0, RecordKind::log);
}

/// Hears of every name and call site with its number, before any record can carry that number. Called
/// under the tables' lock; must not use them.
class NameListener {
 public:
  virtual ~NameListener() = default;
  virtual void on_name(std::uint32_t id, std::string_view name) noexcept = 0;
  virtual void on_site(std::uint32_t id, const SiteInfo& site) noexcept = 0;
};
/// Tells it what there is, and from then on what is new. Throws std::bad_alloc.
void add_name_listener(NameListener& listener);
void remove_name_listener(NameListener& listener) noexcept;

/// Adds a field to the number of a call's fields (0 of none), to compare a call with what its site
/// stands for. Keys are in it as types are: `ok ? Field("rows", n) : Field("error", code)` is one call
/// site. In a call without such a choice it is a constant. 64 bits of a multiplicative hash: that two
/// variants of one site share it does not happen.
constexpr std::uint64_t fold_field(std::uint64_t fields, std::uint32_t key_hash,
                                   std::uint32_t kind) noexcept {
  return (fields ^ (std::uint64_t{key_hash} << 32 | kind | 1U << 31)) * 0x9E37'79B9'7F4A'7C15U;
}

/// The call site of a number that a log record carries. Any thread, no lock.
const SiteInfo& site_of(std::uint32_t id) noexcept;

}  // namespace spillway::detail
