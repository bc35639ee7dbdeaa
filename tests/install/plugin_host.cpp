// SPDX-License-Identifier: Apache-2.0
//
// A host that knows nothing of Spillway and loads the plugin it is given.
#include <cstdio>

#include <dlfcn.h>

int main(int /*argc*/, char** argv) {
  void* const plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const auto run = reinterpret_cast<int (*)()>(dlsym(plugin, "run_plugin"));
  return run == nullptr ? 1 : run();
}
