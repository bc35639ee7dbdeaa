// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include <pthread.h>

#include <spillway/buffers/lane.hpp>
#include <spillway/buffers/stable_table.hpp>
#include <spillway/engine/context.hpp>

namespace spillway::detail {

constinit thread_local Active thread_active;

std::uint64_t next_context_serial() noexcept {
  // A thread takes serials in blocks, so that threads do not meet at the counter.
  constexpr std::uint64_t block = 1024;
  static std::atomic<std::uint64_t> next_block{1};
  thread_local constinit std::uint64_t next = 0;
  if (next % block == 0) next = next_block.fetch_add(1, std::memory_order_relaxed) * block;
  return next++;
}

namespace {

constexpr std::size_t names_bytes_max = 64U << 20;

struct Identities {
  std::shared_mutex mutex;
  std::unordered_map<std::string_view, std::uint32_t> numbers;  // Keys view into `names`.
  StableTable<std::string> names;
  std::size_t bytes = 0;  // of `names`

  // Nobody holds the lock in the child of a fork, whatever another thread was doing here.
  static void before_fork() noexcept;
  static void after_fork() noexcept;
  static void after_fork_in_child() noexcept;
  Identities() {
    names.push("__other__");
    // Last: what is before may throw.
    pthread_atfork(&before_fork, &after_fork, &after_fork_in_child);
  }
};

Identities& identities() {
  static auto* const instance = new Identities;  // Never destroyed, as recording never ends.
  return *instance;
}

void Identities::before_fork() noexcept { identities().mutex.lock(); }
void Identities::after_fork() noexcept { identities().mutex.unlock(); }
// Made anew: it counts readers that wait for it, who are not here.
void Identities::after_fork_in_child() noexcept { std::construct_at(&identities().mutex); }

}  // namespace

std::uint32_t intern_identity(std::string_view name) noexcept try {
  if (name.empty()) return 0;
  // The last few names of this thread, so that a request's tenant costs a comparison and no lock. Few:
  // a plugin has hardly more than a kilobyte for its thread_local variables.
  struct Recent {
    std::size_t hash;
    std::uint32_t number;
  };
  thread_local constinit Recent recent[16]{};
  const std::size_t hash = std::hash<std::string_view>{}(name);
  Recent& slot = recent[hash % 16];
  if (slot.hash == hash && identity_of(slot.number) == name) return slot.number;
  Identities& all = identities();
  std::uint32_t number = 0;
  {
    const std::shared_lock lock(all.mutex);
    if (const auto found = all.numbers.find(name); found != all.numbers.end())
      number = found->second;
  }
  if (number == 0) {
    const std::unique_lock lock(all.mutex);
    if (const auto found = all.numbers.find(name); found != all.numbers.end()) {
      number = found->second;
    } else if (all.names.size() < all.names.capacity() &&
               all.bytes + name.size() <= names_bytes_max) {
      number = all.names.push(std::string(name));
      all.bytes += name.size();
      all.numbers.emplace(all.names[number], number);
    } else {
      number = all.names.capacity();  // They share one series, see identity_of().
    }
  }
  slot = {hash, number};
  return number;
} catch (...) {
  return 0;
}

std::uint32_t ask_identity_number(bool tenant) noexcept {
  Active& active = current_active();
  const ShortText& name = tenant ? active.identity->tenant : active.identity->user;
  return (tenant ? active.tenant_number : active.user_number) = intern_identity(name.view());
}

std::string_view identity_of(std::uint32_t number) noexcept {
  const Identities& all = identities();
  return all.names[number < all.names.size() ? number : 0];
}

bool write_context(Lane& lane, const Active& context, bool urgent) noexcept {
  const auto text = [&](const ShortText Identity::*field) {
    return context.identity == nullptr ? std::string_view{} : (context.identity->*field).view();
  };
  // A small ring takes records of at most a quarter of itself; what a context may hold on top of
  // its numbers is less.
  const std::size_t text_max = (lane.ring.record_bytes_max() - 64) / 4;
  const std::string_view tenant = text(&Identity::tenant).substr(0, text_max);
  const std::string_view user = text(&Identity::user).substr(0, text_max);
  const std::string_view request_id = text(&Identity::request_id).substr(0, text_max);
  std::string_view trace_state = text(&Identity::trace_state);
  if (trace_state.size() > text_max) trace_state = {};  // A part of it is none.
  const std::uint32_t bytes = round_up_to_8(
      static_cast<std::uint32_t>(sizeof(RecordHeader) + sizeof(ContextBody) + tenant.size() +
                                 user.size() + request_id.size() + trace_state.size()));
  const Ring::Room room = lane.ring.reserve(bytes, urgent);
  if (!room) return false;
  std::byte* at = room.at;
  const RecordHeader header{RecordHeader::pack(bytes, RecordKind::context), context.trace_flags(),
                            context.serial};
  const ContextBody body{context.trace_id, static_cast<std::uint16_t>(tenant.size()),
                         static_cast<std::uint16_t>(user.size()),
                         static_cast<std::uint16_t>(request_id.size()),
                         static_cast<std::uint16_t>(trace_state.size())};
  std::memcpy(at, &header, sizeof header);
  at += sizeof header;
  std::memcpy(at, &body, sizeof body);
  at += sizeof body;
  for (const std::string_view part : {tenant, user, request_id, trace_state}) {
    copy_text(at, part.data(), part.size());
    at += part.size();
  }
  lane.ring.commit(room);
  lane.written_context = context.serial;
  return true;
}

}  // namespace spillway::detail

namespace spillway {

Context::Context(const ContextFields& fields)
    : identity_{detail::ShortText(fields.tenant),
                detail::ShortText(fields.user),
                detail::ShortText(fields.request_id),
                {},
                {},
                {}} {
  state_.serial = detail::next_context_serial();
  if (!fields.tenant.empty()) state_.tenant_number = detail::identity_unasked;
  if (!fields.user.empty()) state_.user_number = detail::identity_unasked;
  if (fields.trace && fields.trace->trace_id) {
    state_.trace_id = fields.trace->trace_id;
    state_.span_id = fields.trace->parent_id;
    state_.sampled = fields.trace->sampled;
    if (fields.trace->segment_is_lambdas) state_.span_flags = detail::span_joined;
    identity_.trace_fields = fields.trace->fields;
    identity_.trace_state = fields.trace->trace_state;
  } else if (fields.link) {
    identity_.link_trace_id = fields.link->trace_id;
    identity_.link_span_id = fields.link->parent_id;
  }
}

Context Context::current() {
  Context copy;
  copy.state_ = detail::current_active();
  if (detail::current_active().identity != nullptr)
    copy.identity_ = *detail::current_active().identity;
  copy.state_.identity = nullptr;  // A Scope points it at the copy's own.
  return copy;
}

}  // namespace spillway
