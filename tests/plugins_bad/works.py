"""A plugin with nothing but the seed's five members."""


class WorkingDestination:
    name = "works"
    priority = 10
    enabled = True

    def validate_config(self):
        return True, None

    def export(self, context):
        raise NotImplementedError
