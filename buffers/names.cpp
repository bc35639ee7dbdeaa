// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include <pthread.h>

#include <spillway/buffers/names.hpp>
#include <spillway/buffers/stable_table.hpp>

namespace spillway::detail {
namespace {

struct Tables {
  std::mutex mutex;
  std::unordered_map<std::string_view, std::uint32_t> ids;  // Keys view into `names`.
  StableTable<std::string> names;
  StableTable<SiteInfo> sites;
  std::map<std::pair<const LogSite*, std::uint64_t>, std::uint32_t> site_ids;
  std::vector<NameListener*> listeners;

  std::uint32_t add_site(SiteInfo&& info) {
    const std::uint32_t id = sites.push(std::move(info));
    for (NameListener* const one : listeners) one->on_site(id, sites[id]);
    return id;
  }

  // Nobody holds the lock in the child of a fork, whatever another thread was doing here.
  static void before_fork() noexcept;
  static void after_fork() noexcept;

  Tables() {
    names.push("(too many names)");
    sites.push({Severity::info, "(too many call sites)", "", 0, {}});
    pthread_atfork(&before_fork, &after_fork, &after_fork);  // Last: not of one that is made again.
  }
};

// Never destroyed: records are made and read while static objects go away.
Tables& tables() {
  static auto* const instance = new Tables;
  return *instance;
}

void Tables::before_fork() noexcept { tables().mutex.lock(); }
void Tables::after_fork() noexcept { tables().mutex.unlock(); }

/// Whether what is known of a site is still so: a library that was loaded where another one had been
/// has its sites at the addresses of that one's.
bool is_of(const SiteInfo& info, const LogSite& site, std::span<const SiteKey> keys) {
  return info.severity == site.severity && info.line == site.line && info.message == site.message &&
         info.file == site.file &&
         std::equal(info.fields.begin(), info.fields.end(), keys.begin(), keys.end(),
                    [](const SiteField& field, const SiteKey& key) {
                      return field.key == key.key && field.type == key.type &&
                             field.role == key.role && field.unit == key.unit &&
                             field.high_resolution == key.high_resolution;
                    });
}

}  // namespace

std::uint32_t intern_name(std::string_view name) noexcept try {
  Tables& all = tables();
  const std::scoped_lock lock(all.mutex);
  if (const auto found = all.ids.find(name); found != all.ids.end()) return found->second;
  if (all.names.size() == all.names.capacity()) return 0;
  const std::uint32_t id = all.names.push(std::string(name));
  all.ids.emplace(all.names[id], id);
  for (NameListener* const one : all.listeners) one->on_name(id, all.names[id]);
  return id;
} catch (...) {
  return 0;  // Out of memory: the record goes out under the shared name.
}

std::string_view name_of(std::uint32_t id) noexcept {
  const Tables& all = tables();
  return all.names[id < all.names.size() ? id : 0];
}

std::uint32_t register_site(LogSite& site, std::span<const SiteKey> keys,
                            std::uint64_t fields) noexcept try {
  Tables& all = tables();
  const std::scoped_lock lock(all.mutex);
  const std::pair<const LogSite*, std::uint64_t> variant{&site, fields};
  std::uint32_t id = 0;
  if (const auto known = all.site_ids.find(variant);
      known != all.site_ids.end() && is_of(all.sites[known->second], site, keys)) {
    id = known->second;
  } else {
    if (all.sites.size() == all.sites.capacity()) return 0;
    SiteInfo info{site.severity, site.message, site.file, site.line, {}};
    for (const SiteKey& key : keys) {
      info.fields.push_back(
          {std::string(key.key), key.type, key.role, key.unit, key.high_resolution});
    }
    id = all.add_site(std::move(info));
    all.site_ids.insert_or_assign(variant, id);
  }
  if (site.record_head.load(std::memory_order_relaxed) == 0) {
    site.record_head.store(log_record_head(id), std::memory_order_relaxed);
    site.fields.store(fields, std::memory_order_release);
  }
  return id;
} catch (...) {
  return 0;
}

std::uint32_t add_site(SiteInfo&& info) noexcept try {
  Tables& all = tables();
  const std::scoped_lock lock(all.mutex);
  return all.sites.size() == all.sites.capacity() ? 0 : all.add_site(std::move(info));
} catch (...) {
  return 0;
}

void add_name_listener(NameListener& listener) {
  Tables& all = tables();
  const std::scoped_lock lock(all.mutex);
  all.listeners.push_back(&listener);
  for (std::uint32_t id = 1; id < all.names.size(); ++id) listener.on_name(id, all.names[id]);
  for (std::uint32_t id = 1; id < all.sites.size(); ++id) listener.on_site(id, all.sites[id]);
}

void remove_name_listener(NameListener& listener) noexcept {
  Tables& all = tables();
  const std::scoped_lock lock(all.mutex);
  std::erase(all.listeners, &listener);
}

const SiteInfo& site_of(std::uint32_t id) noexcept {
  const Tables& all = tables();
  return all.sites[id < all.sites.size() ? id : 0];
}

}  // namespace spillway::detail
